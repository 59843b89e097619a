//! Text from elsewhere, made fit to be printed.

use std::fmt::Write as _;

/// Control characters, line separators and what changes the direction of writing become escapes: a name cannot forge a
/// line, colour a terminal, or read other than it is.
pub(crate) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_plain(c) {
            out.push(c);
        } else {
            let _ = write!(out, "{}", c.escape_unicode());
        }
    }
    out
}

fn is_plain(c: char) -> bool {
    let separators = ['\u{2028}', '\u{2029}', '\u{feff}', '\u{61c}'];
    let directions = ['\u{200b}'..='\u{200f}', '\u{202a}'..='\u{202e}', '\u{2060}'..='\u{206f}'];
    !c.is_control() && !separators.contains(&c) && !directions.iter().any(|range| range.contains(&c))
}

/// At most `limit` bytes of a text, cut at a character; `…` says that something is missing.
pub(crate) fn cut(mut text: String, limit: usize) -> String {
    const MARK: char = '…';
    if text.len() > limit {
        let mut at = limit.saturating_sub(MARK.len_utf8());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        text.truncate(at);
        text.push(MARK);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_forges_a_line() {
        assert_eq!(plain("wéb-1"), "wéb-1");
        assert_eq!(plain("a\nb\x1b[31m"), "a\\u{a}b\\u{1b}[31m");
        assert_eq!(plain("a\u{202e}b"), "a\\u{202e}b");
    }

    #[test]
    fn cuts_are_at_characters() {
        assert_eq!(cut("abcdef".to_owned(), 6), "abcdef");
        assert_eq!(cut("abcdefg".to_owned(), 6), "abc…");
        assert_eq!(cut("ééééé".to_owned(), 6), "é…");
        assert_eq!(cut("ééééé".to_owned(), 7), "éé…");
    }
}
