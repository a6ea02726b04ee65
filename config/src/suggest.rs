//! "Did you mean": the known name nearest to a misspelt one.

/// The candidate with the fewest edits from `name`, if they are few for its length.
pub(crate) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let folded: Vec<char> = name.to_lowercase().replace('_', "-").chars().collect();
    // A hostile file can hold a key of any length; no known key is near one that is much longer.
    if folded.len() > 64 {
        return None;
    }
    let most = (folded.len() / 3).clamp(1, 3);
    candidates
        .map(|candidate| {
            (distance(&folded, &candidate.replace('_', "-").chars().collect::<Vec<_>>()), candidate)
        })
        .filter(|(edits, _)| *edits <= most)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's edit distance.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (n, from) in a.iter().enumerate() {
        let (mut diagonal, mut left) = (n, n + 1);
        for (cell, to) in row.iter_mut().zip([None].into_iter().chain(b.iter().map(Some))) {
            let Some(to) = to else {
                *cell = left;
                continue;
            };
            let edits = (diagonal + usize::from(from != to)).min(left + 1).min(*cell + 1);
            diagonal = std::mem::replace(cell, edits);
            left = edits;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_count_single_edits() {
        let count =
            |a: &str, b: &str| distance(&a.chars().collect::<Vec<_>>(), &b.chars().collect::<Vec<_>>());
        for (a, b, want) in [
            ("", "", 0),
            ("abc", "abc", 0),
            ("", "ab", 2),
            ("ab", "", 2),
            ("kitten", "sitting", 3),
            ("node-id", "nodeid", 1),
        ] {
            assert_eq!(count(a, b), want, "{a} {b}");
        }
    }

    #[test]
    fn only_near_names_are_suggested() {
        let known = ["session-expire", "scandir-limit", "secret"];
        assert_eq!(nearest("sesion_expire", known.into_iter()), Some("session-expire"));
        assert_eq!(nearest("Secret", known.into_iter()), Some("secret"));
        assert_eq!(nearest("volumes", known.into_iter()), None);
        assert_eq!(nearest(&"x".repeat(10_000), known.into_iter()), None);
    }
}
