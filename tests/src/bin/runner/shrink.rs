//! Making a list that shows a problem shorter, while it still does.

use std::ops::Range;

use anyhow::Result;

/// How many lists are tried at once: starting a machine costs more than what it does.
const BATCH: usize = 64;

/// Drops elements of `list` until none can be spared. `fails` says for each of several
/// lists whether it still shows the problem.
///
/// # Errors
/// Those of `fails`.
pub fn shrink<T: Clone>(list: Vec<T>, mut fails: impl FnMut(&[Vec<T>]) -> Result<Vec<bool>>) -> Result<Vec<T>> {
    let mut list = list;
    let mut size = list.len().div_ceil(2);
    while size > 0 && !list.is_empty() {
        let before = list.len();
        // From the end, so that what is dropped does not move what is still to be tried.
        let mut end = list.len();
        while end > 0 {
            let first = end.saturating_sub(size * BATCH);
            let pieces: Vec<Range<usize>> = (first..end).step_by(size).map(|at| at..end.min(at + size)).collect();
            let without: Vec<Vec<T>> =
                pieces.iter().map(|piece| drop_all(&list, std::slice::from_ref(piece))).collect();
            let verdicts = fails(&without)?;
            let spared: Vec<Range<usize>> =
                pieces.into_iter().zip(verdicts).filter(|(_, fails)| *fails).map(|(piece, _)| piece).collect();
            // Each of these can go, but maybe not all of them.
            let together: Vec<Vec<T>> = (2..=spared.len()).map(|count| drop_all(&list, &spared[..count])).collect();
            let verdicts = if together.is_empty() { Vec::new() } else { fails(&together)? };
            let most = verdicts.iter().rposition(|fails| *fails).map(|i| i + 2).unwrap_or(spared.len().min(1));
            list = drop_all(&list, &spared[..most]);
            end = first;
        }
        if list.len() == before || size > 1 {
            size /= 2;
        }
    }
    Ok(list)
}

/// What is in none of the ranges.
fn drop_all<T: Clone>(list: &[T], ranges: &[Range<usize>]) -> Vec<T> {
    let kept = |i: &usize| !ranges.iter().any(|range| range.contains(i));
    (0..list.len()).filter(kept).map(|i| list[i].clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::shrink;

    /// Shrinks 0..n with a problem that needs all of `needed`; returns what is left and
    /// the number of batches.
    fn shrunk(n: usize, needed: &[usize]) -> (Vec<usize>, usize) {
        let mut batches = 0;
        let left = shrink((0..n).collect(), |lists| {
            batches += 1;
            assert!(lists.len() <= super::BATCH);
            Ok(lists.iter().map(|list| needed.iter().all(|i| list.contains(i))).collect())
        });
        (left.unwrap(), batches)
    }

    #[test]
    fn what_is_needed_stays() {
        for needed in [&[0][..], &[1999], &[3, 4, 5], &[7, 900, 1500], &[]] {
            assert_eq!(shrunk(2000, needed).0, needed);
        }
        assert_eq!(shrunk(1, &[0]).0, [0]);
        assert_eq!(shrunk(0, &[]).0, []);
    }

    #[test]
    fn few_batches_are_enough() {
        assert!(shrunk(2000, &[7, 900, 1500]).1 < 40);
    }

    #[test]
    fn pieces_that_cannot_all_go_are_dropped_as_far_as_possible() {
        // Any of the elements will do, but one has to stay.
        let left = shrink((0..100).collect(), |lists| Ok(lists.iter().map(|list| !list.is_empty()).collect()));
        assert_eq!(left.unwrap().len(), 1);
    }
}
