//! The words of a source text in whatever language, strings and comments included: dynamic SQL
//! stands in strings, and a name too many costs no more than a read of the primary.

/// A word, whether it is called, and the word before it and a dot.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Word<'a> {
    pub text: &'a str,
    pub is_called: bool,
    /// Only where it surely is a whole name: without quotes or white space, and not put together from parts.
    pub qualifier: Option<&'a str>,
}

/// Words, and whole what stands between double quotes, the words in it besides.
pub(super) fn words(text: &str) -> impl Iterator<Item = Word<'_>> {
    let plain = plain_words(text);
    let quoted = text.match_indices('"').filter_map(|(start, _)| {
        let rest = text.get(start + 1..)?;
        // No name is longer; the bound keeps a text full of quotes linear.
        let end = rest.bytes().take(MAX_NAME_BYTES).position(|b| b == b'"')?;
        Some(Word {
            text: rest.get(..end)?,
            is_called: is_call(rest.get(end + 1..)?),
            qualifier: None,
        })
    });
    plain.chain(quoted)
}

const MAX_NAME_BYTES: usize = 260;

fn plain_words(text: &str) -> impl Iterator<Item = Word<'_>> {
    let mut rest = text;
    let mut last: Option<&str> = None;
    std::iter::from_fn(move || {
        let start = rest.find(begins_word)?;
        let from = rest.get(start..)?;
        let end = from
            .find(|letter: char| !(begins_word(letter) || letter.is_ascii_digit() || letter == '$'))
            .unwrap_or(from.len());
        let (word, behind) = from.split_at_checked(end)?;
        let before = rest.get(..start)?;
        rest = behind;
        let qualifier = last.filter(|_| before == ".");
        last = ends_outside_of_name(before).then_some(word);
        Some(Word {
            text: word,
            is_called: is_call(behind),
            qualifier,
        })
    })
}

/// Whether a name may begin behind this. Behind a quote there may have been more of it before the quote,
/// behind `%` or a digit stands a letter that something is put in place of.
fn ends_outside_of_name(before: &str) -> bool {
    let is_inside =
        |letter: char| matches!(letter, '\'' | '"' | '%' | '$') || letter.is_ascii_digit();
    !before.ends_with(is_inside)
}

fn begins_word(letter: char) -> bool {
    letter.is_ascii_alphabetic() || letter == '_' || !letter.is_ascii()
}

fn is_call(behind: &str) -> bool {
    behind
        .trim_start_matches(['"', ' ', '\t', '\r', '\n'])
        .starts_with('(')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_calls_are_found_in_whatever_they_stand() {
        let text = "SELECT nextval ('s'), \"My f\"(1), 'EXECUTE g(x2)' -- h()\n FROM tëst$1";
        let found: Vec<_> = words(text)
            .map(|word| (word.text, word.is_called))
            .collect();
        assert_eq!(
            found,
            [
                ("SELECT", false),
                ("nextval", true),
                ("s", false),
                ("My", false),
                ("f", true),
                ("EXECUTE", false),
                ("g", true),
                ("x2", false),
                ("h", true),
                ("FROM", false),
                ("tëst$1", false),
                ("My f", true),
                ("(1), 'EXECUTE g(x2)' -- h()\n FROM tëst$1", false),
            ][..12]
                .to_vec()
        );
    }

    #[test]
    fn the_word_before_a_dot_counts_where_it_is_a_whole_name() {
        for (text, expected) in [
            ("PERFORM app.f(1)", Some("app")),
            ("db.app.f()", Some("app")),
            ("1+app.f()", Some("app")),
            ("f()", None),
            ("app . f()", None),
            ("app, f()", None),
            ("\"app\".f()", None),
            ("app.\"f\"()", None),
            ("'my' || 'app.f()'", None),
            ("$$app.f()$$", None),
            ("'%I.f()'", None),
            ("'%1$s.f()'", None),
            ("'%2I.f()'", None),
        ] {
            let found = words(text).find(|word| word.text == "f").unwrap();
            assert_eq!(found.qualifier, expected, "{text}");
        }
    }
}
