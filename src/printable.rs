//! Text of clients and providers for terminals, spreadsheets and logs: without characters that move a cursor, set colors or titles,
//! forge lines, or change the direction of what follows.

use std::borrow::Cow;

/// The text with every control and formatting character replaced by U+FFFD.
pub fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().any(is_control) {
        Cow::Owned(text.chars().map(|letter| if is_control(letter) { '\u{fffd}' } else { letter }).collect())
    } else {
        Cow::Borrowed(text)
    }
}

/// True for C0 and C1 controls, line and paragraph separators, and Unicode's invisible and bidirectional formatting:
/// <https://www.unicode.org/reports/tr36/#Bidirectional_Text_Spoofing>.
fn is_control(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_are_replaced_and_all_else_stays() {
        for (text, want) in [
            ("plain ünï 日本 🦊", "plain ünï 日本 🦊"),
            ("a\x1b[31mred", "a\u{fffd}[31mred"),
            ("a\x1b]0;title\x07", "a\u{fffd}]0;title\u{fffd}"),
            ("row\nforged\r\tx", "row\u{fffd}forged\u{fffd}\u{fffd}x"),
            ("\u{9b}31m", "\u{fffd}31m"),
            ("\u{202e}gnp", "\u{fffd}gnp"),
            ("\u{2028}\u{200b}\u{feff}\0\x7f", "\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}"),
        ] {
            assert_eq!(printable(text), want, "{text:?}");
        }
    }
}
