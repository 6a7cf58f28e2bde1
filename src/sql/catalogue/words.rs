//! The words of a source text in whatever language, strings and comments included: dynamic SQL
//! stands in strings, and a name too many costs no more than a read of the primary.

/// A word, and whether it is called.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Word<'a> {
    pub text: &'a str,
    pub is_called: bool,
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
        })
    });
    plain.chain(quoted)
}

const MAX_NAME_BYTES: usize = 260;

fn plain_words(text: &str) -> impl Iterator<Item = Word<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let start = rest.find(begins_word)?;
        let from = rest.get(start..)?;
        let end = from
            .find(|letter: char| !(begins_word(letter) || letter.is_ascii_digit() || letter == '$'))
            .unwrap_or(from.len());
        let (word, behind) = from.split_at_checked(end)?;
        rest = behind;
        Some(Word {
            text: word,
            is_called: is_call(behind),
        })
    })
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
}
