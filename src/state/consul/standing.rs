//! How it stands with something that is asked of Consul.

/// How the last questions went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// Whether the last question was answered; absent before the first outcome.
    pub is_up: Option<bool>,
    /// What Consul calls the state of its last answer.
    pub index: u64,
    /// When the last answer came, in Unix seconds.
    pub last_success: Option<i64>,
    /// Why the last question had no answer that can be used.
    pub error: Option<String>,
    /// Failures since the last answer.
    pub failures: u32,
    /// The last answer had nothing left of what there was, and is not believed before it is repeated.
    pub is_doubted: bool,
}
