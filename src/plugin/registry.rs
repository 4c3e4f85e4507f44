//! The macro that turns the table in `plugins/mod.rs` into static dispatch.
//!
//! It does nothing but list: one enum variant, one match arm and one catalog entry for each line.

use serde::Deserializer;
use thiserror::Error;

use super::{ConfigError, Plugin};

/// What is known of a plugin without an instance of it.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// The name operators write.
    pub name: &'static str,
    /// Higher runs first, in every phase.
    pub priority: i32,
    /// Whether it may be attached to a consumer.
    pub consumer_scope: bool,
    /// The JSON Schema of its `config:` block.
    pub schema: fn() -> schemars::Schema,
}

/// Why a `config:` block was not accepted.
#[derive(Debug, Error)]
pub enum Refused {
    /// The block cannot be read, in the words of the reader.
    #[error("{0}")]
    Unreadable(String),
    /// A rule of the plugin.
    #[error(transparent)]
    Rule(#[from] ConfigError),
}

/// The JSON Schema of the `config:` block of plugin `P`, with nothing referred to elsewhere.
pub fn schema_of<P: Plugin>() -> schemars::Schema {
    let mut settings = schemars::generate::SchemaSettings::draft2020_12();
    settings.inline_subschemas = true;
    settings
        .into_generator()
        .into_root_schema_for::<P::Config>()
}

/// Reads the `config:` block of plugin `P`.
///
/// # Errors
/// When the block does not fit the type, which the schema check has normally reported before.
pub fn read_config<'de, P: Plugin, D: Deserializer<'de>>(config: D) -> Result<P::Config, Refused> {
    serde::Deserialize::deserialize(config)
        .map_err(|error: D::Error| Refused::Unreadable(error.to_string()))
}

/// Makes `Instance`, `Memo`, `Families`, `CATALOG` and `configure` out of a table of
/// `priority => module::Type`, highest priority first.
macro_rules! plugins {
    ($($priority:literal => $module:ident :: $plugin:ident),+ $(,)?) => {
        /// One configured plugin.
        #[derive(Debug)]
        pub enum Instance { $($plugin(Box<$module::$plugin>)),+ }

        /// What one plugin remembers of one request.
        #[derive(Debug)]
        pub enum Memo { $($plugin(<$module::$plugin as Plugin>::Memo)),+ }

        /// The metric families of all plugins, registered once.
        #[derive(Debug)]
        pub struct Families { $($module: Arc<<$module::$plugin as Plugin>::Metrics>),+ }

        impl Families {
            /// Registers every plugin's families.
            ///
            /// # Errors
            /// When two families share a name.
            pub fn register(registry: &::prometheus::Registry) -> Result<Self, ::prometheus::Error> {
                Ok(Self { $($module: Arc::new(Metrics::register(registry)?)),+ })
            }
        }

        /// Every plugin, in order of execution.
        pub const CATALOG: &[Entry] = &[
            $(Entry {
                name: <$module::$plugin as Plugin>::NAME,
                priority: $priority,
                consumer_scope: <$module::$plugin as Plugin>::CONSUMER_SCOPE,
                schema: schema_of::<$module::$plugin>,
            }),+
        ];

        /// Configures the plugin `name`; `None` if there is no such plugin.
        pub fn configure<'de, D: serde::Deserializer<'de>>(
            name: &str,
            config: D,
            surroundings: &Surroundings<'_>,
        ) -> Option<Result<Instance, Refused>> {
            $(if name == <$module::$plugin as Plugin>::NAME {
                let env = surroundings.env(&surroundings.families.$module);
                return Some(
                    read_config::<$module::$plugin, D>(config)
                        .and_then(|config| Ok($module::$plugin::configure(config, &env)?))
                        .map(|plugin| Instance::$plugin(Box::new(plugin))),
                );
            })+
            None
        }

        impl Instance {
            /// The plugin's name.
            pub fn name(&self) -> &'static str {
                match self { $(Self::$plugin(_) => <$module::$plugin as Plugin>::NAME),+ }
            }

            /// Whether the access phase may be run for an explanation, see `Plugin::REHEARSABLE`.
            pub fn is_rehearsable(&self) -> bool {
                match self { $(Self::$plugin(_) => <$module::$plugin as Plugin>::REHEARSABLE),+ }
            }

            /// Whether the plugin is one that finds the consumer of a request.
            pub fn finds_consumer(&self) -> bool {
                match self { $(Self::$plugin(_) => !<$module::$plugin as Plugin>::CONSUMER_SCOPE),+ }
            }

            /// A memo at its default.
            pub fn memo(&self) -> Memo {
                match self { $(Self::$plugin(_) => Memo::$plugin(Default::default())),+ }
            }

            /// Names of arguments in which the plugin may find a credential.
            pub fn secret_arguments(&self) -> Vec<String> {
                match self { $(Self::$plugin(plugin) => plugin.secret_arguments()),+ }
            }

            /// The services that the plugin may send a request to in place of the route's.
            pub fn services(&self) -> Vec<ServiceIndex> {
                match self { $(Self::$plugin(plugin) => plugin.services()),+ }
            }

            /// The services that the plugin chooses from for a request, see `Plugin::choice`.
            pub fn choice(&self, request: &Request<'_>) -> Option<Choice> {
                match self { $(Self::$plugin(plugin) => plugin.choice(request)),+ }
            }

            /// Runs the access phase. `memo` must come from this instance's [`Self::memo`].
            ///
            /// # Errors
            /// What the plugin ends the request with.
            pub async fn access(
                &self,
                memo: &mut Memo,
                request: &mut Request<'_>,
            ) -> Result<(), Halt> {
                match (self, memo) {
                    $((Self::$plugin(plugin), Memo::$plugin(memo)) => plugin.access(memo, request).await,)+
                    _ => unreachable!("the chain pairs each instance with its own memo"),
                }
            }

            /// Runs the response phase.
            pub fn response(&self, memo: &mut Memo, response: &mut Response<'_>) {
                match (self, memo) {
                    $((Self::$plugin(plugin), Memo::$plugin(memo)) => plugin.response(memo, response),)+
                    _ => unreachable!("the chain pairs each instance with its own memo"),
                }
            }

            /// Runs the log phase.
            pub fn log(&self, memo: &mut Memo, record: &Record<'_>) {
                match (self, memo) {
                    $((Self::$plugin(plugin), Memo::$plugin(memo)) => plugin.log(memo, record),)+
                    _ => unreachable!("the chain pairs each instance with its own memo"),
                }
            }
        }

        const _: () = {
            let mut index = 1;
            while index < CATALOG.len() {
                assert!(
                    CATALOG[index - 1].priority > CATALOG[index].priority,
                    "plugins stand in order of strictly falling priority"
                );
                index += 1;
            }
            assert!(size_of::<Memo>() <= 64, "a memo over 64 bytes boxes itself");
        };
    };
}
pub(crate) use plugins;
