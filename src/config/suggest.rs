//! Which known name was meant by an unknown one.

/// The known name nearest to `name`, if one is near enough to be worth proposing.
///
/// Near are: another spelling of the same words (`connectTimeout`, `strip-path`, `path_strip`), a few wrong, missing,
/// added or swapped letters, and a name that one of the two begins with (`regex_prio`).
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let spelled = Spelling::new(name);
    known
        .into_iter()
        .filter_map(|candidate| Some((spelled.distance(&Spelling::new(candidate))?, candidate)))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

struct Spelling {
    /// Lower case, words joined with `_`.
    plain: String,
    /// The words in alphabetical order.
    words: Vec<String>,
}

impl Spelling {
    fn new(name: &str) -> Self {
        let mut plain = String::with_capacity(name.len() + 4);
        let mut after_lower = false;
        for character in name.chars() {
            if character.is_uppercase() && after_lower {
                plain.push('_');
            }
            after_lower = character.is_lowercase() || character.is_ascii_digit();
            if matches!(character, '-' | ' ' | '.') {
                plain.push('_');
            } else {
                plain.extend(character.to_lowercase());
            }
        }
        let mut words: Vec<String> = plain.split('_').map(str::to_owned).collect();
        words.sort_unstable();
        Self { plain, words }
    }

    /// 0 is the same name; `None` is another one altogether.
    fn distance(&self, other: &Self) -> Option<usize> {
        if self.plain == other.plain {
            return Some(0);
        }
        if self.words == other.words {
            return Some(1);
        }
        let (shorter, longer) = if self.plain.len() <= other.plain.len() {
            (self, other)
        } else {
            (other, self)
        };
        let tolerated = match longer.plain.chars().count() {
            0..=2 => 0,
            3..=5 => 1,
            6..=8 => 2,
            _ => 3,
        };
        let typos = strsim::damerau_levenshtein(&self.plain, &other.plain);
        if typos <= tolerated {
            return Some(typos);
        }
        let begins = shorter.plain.len() >= 3 && longer.plain.starts_with(&shorter.plain);
        begins.then(|| 4 + longer.plain.len() - shorter.plain.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[&str] = &[
        "retries",
        "connect_timeout",
        "read_timeout",
        "strip_path",
        "host",
        "regex_priority",
        "tags",
    ];

    fn proposed(name: &str) -> Option<&'static str> {
        nearest(name, KNOWN.iter().copied())
    }

    #[test]
    fn typos_are_recognised() {
        assert_eq!(proposed("retires"), Some("retries"));
        assert_eq!(proposed("retry"), None);
        assert_eq!(proposed("hosts"), Some("host"));
        assert_eq!(proposed("tag"), Some("tags"));
        assert_eq!(proposed("conect_timeout"), Some("connect_timeout"));
    }

    #[test]
    fn other_spellings_are_recognised() {
        assert_eq!(proposed("connectTimeout"), Some("connect_timeout"));
        assert_eq!(proposed("strip-path"), Some("strip_path"));
        assert_eq!(proposed("path_strip"), Some("strip_path"));
        assert_eq!(proposed("STRIP_PATH"), Some("strip_path"));
    }

    #[test]
    fn beginnings_are_recognised() {
        assert_eq!(proposed("regex_prio"), Some("regex_priority"));
        assert_eq!(proposed("read_timeout_ms"), Some("read_timeout"));
    }

    #[test]
    fn nothing_is_proposed_for_something_else() {
        assert_eq!(proposed("unrelated"), None);
        assert_eq!(proposed("x"), None);
    }
}
