//! The choice of runs to be checked, if there are too many.

/// The indices, in order, of at most `most` runs of these lengths: the longest and the shortest,
/// the first and the last, and others spread evenly.
pub(super) fn chosen(lengths: &[u64], most: usize) -> Vec<usize> {
    let count = lengths.len();
    if count <= most {
        return (0..count).collect();
    }
    let by_length = |&index: &usize| lengths.get(index).copied();
    let mut chosen = vec![0, count - 1];
    chosen.extend((0..count).max_by_key(by_length));
    chosen.extend((0..count).min_by_key(by_length));
    let rest = most.saturating_sub(chosen.len());
    chosen.extend((0..rest).map(|nth| nth * count / rest));
    chosen.sort_unstable();
    chosen.dedup();
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_runs_are_all_chosen() {
        assert_eq!(chosen(&[3, 1, 2], 3), [0, 1, 2]);
        assert!(chosen(&[], 3).is_empty());
    }

    #[test]
    fn of_many_the_longest_and_the_shortest_are_among_them() {
        let mut lengths = vec![8; 1000];
        lengths[617] = 4;
        lengths[333] = 99;
        let chosen = chosen(&lengths, 20);
        assert!(chosen.len() <= 20 && chosen.len() > 15, "{chosen:?}");
        for index in [0, 333, 617, 999] {
            assert!(chosen.contains(&index), "{index}: {chosen:?}");
        }
    }
}
