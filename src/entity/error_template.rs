//! A template for error bodies: a text with two places, one for the message and one for the id of
//! the request. What is put there must have been escaped for the form of the text.

use thiserror::Error;

/// A text around a message and a request id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorTemplate {
    before: Box<str>,
    between: Box<str>,
    after: Box<str>,
}

/// A text that is no template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "needs `%s` twice, for the message and for the request id; found {found} (write `%%` for a percent sign before an `s`)"
)]
pub struct NoTemplate {
    /// How many places there are.
    pub found: usize,
}

impl ErrorTemplate {
    /// Reads Kong's notation: `%s` twice, `%%` for a percent sign. A percent sign before anything else
    /// is one, as in `width: 100%;`.
    ///
    /// # Errors
    /// When there are not exactly two places.
    pub fn parse(text: &str) -> Result<Self, NoTemplate> {
        let mut parts = vec![String::new()];
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            let place = character == '%' && characters.peek() == Some(&'s');
            if place {
                characters.next();
                parts.push(String::new());
                continue;
            }
            if character == '%' && characters.peek() == Some(&'%') {
                characters.next();
            }
            if let Some(part) = parts.last_mut() {
                part.push(character);
            }
        }
        let found = parts.len() - 1;
        let [before, between, after] =
            <[String; 3]>::try_from(parts).map_err(|_| NoTemplate { found })?;
        Ok(Self {
            before: before.into(),
            between: between.into(),
            after: after.into(),
        })
    }

    /// The text with `message` and `request_id` in their places.
    pub fn fill(&self, message: &str, request_id: &str) -> String {
        [
            &*self.before,
            message,
            &*self.between,
            request_id,
            &*self.after,
        ]
        .concat()
    }
}

/// The templates of an operator, each absent where the built-in body serves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ErrorTemplates {
    pub html: Option<ErrorTemplate>,
    pub json: Option<ErrorTemplate>,
    pub plain: Option<ErrorTemplate>,
    pub xml: Option<ErrorTemplate>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_and_id_take_their_places_in_order() {
        let template = ErrorTemplate::parse("<p>%s</p><i>%s</i>").expect("a template");
        assert_eq!(template.fill("no", "1f"), "<p>no</p><i>1f</i>");
        let bare = ErrorTemplate::parse("%s%s").expect("a template");
        assert_eq!(bare.fill("a %s b", "1f"), "a %s b1f");
    }

    #[test]
    fn a_percent_sign_is_one_unless_an_s_follows() {
        let template = ErrorTemplate::parse("100%; 5%% %%s %s %s 3%").expect("a template");
        assert_eq!(template.fill("m", "i"), "100%; 5% %s m i 3%");
    }

    #[test]
    fn any_other_number_of_places_is_no_template() {
        for (text, found) in [("", 0), ("%s", 1), ("%%s %s", 1), ("%s %s %s", 3)] {
            assert_eq!(
                ErrorTemplate::parse(text),
                Err(NoTemplate { found }),
                "{text}"
            );
        }
    }
}
