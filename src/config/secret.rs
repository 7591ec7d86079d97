//! A credential that no log, error or panic can print.

use std::fmt;

/// Holds a secret; shows itself only to whoever calls [`Secret::expose`].
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself, for the header that carries it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn does_not_print_itself() {
        assert!(!format!("{:?}", super::Secret::new("sk-live")).contains("sk-live"));
    }
}
