//! The name that somebody probably meant.

/// The candidate closest to `text`, if one is close enough to be worth naming.
pub(super) fn nearest<'a>(
    text: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    // A third of the letters wrong is still the same word; more is another one.
    let tolerance = text.chars().count().max(3) / 3 + 1;
    candidates
        .map(|candidate| (distance(text, candidate), candidate))
        .filter(|(distance, _)| *distance <= tolerance)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance, one row at a time.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, from) in left.chars().enumerate() {
        let mut diagonal = index;
        row[0] = index + 1;
        for (column, to) in right.iter().enumerate() {
            let substituted = diagonal + usize::from(from != *to);
            diagonal = row[column + 1];
            row[column + 1] = substituted.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::{distance, nearest};

    #[test]
    fn a_slip_of_the_fingers_finds_the_key() {
        let keys = || ["lease_seconds", "project_roots", "limits.memory"].into_iter();
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(nearest("lease_second", keys()), Some("lease_seconds"));
        assert_eq!(nearest("project_root", keys()), Some("project_roots"));
        assert_eq!(nearest("limits.memmory", keys()), Some("limits.memory"));
        assert_eq!(nearest("colour", keys()), None);
    }
}
