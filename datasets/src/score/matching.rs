//! Pairing the calls of an answer with those of a gold.
//!
//! Which call answers which gold is not written anywhere. Of all ways to pair them, the one that
//! counts shares the most leaves; of these, the one with the fewest leaves too many; of these, the
//! one with the most right pairs. The sum is the same for every way that is best, so that the order
//! in which an answer lists its calls cannot change its score.

/// Bits of one part of a weight. Sums of the parts stay far below.
const BITS: u32 = 40;

/// What pairing one gold with one call of the answer gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pair {
    /// Leaves in both.
    pub(super) shared: u64,
    /// Leaves of the call that are no longer too many, because the gold has or excuses them.
    pub(super) excused: u64,
    /// The call is all that the gold asks for.
    pub(super) is_right: bool,
}

impl Pair {
    fn weight(self) -> i128 {
        (i128::from(self.shared) << (2 * BITS))
            + (i128::from(self.excused) << BITS)
            + i128::from(self.is_right)
    }
}

/// What the best pairing adds up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    /// Leaves in both.
    pub(super) shared: u64,
    /// Leaves of the answer that are not too many.
    pub(super) excused: u64,
    /// Right pairs.
    pub(super) right: u64,
}

impl Sum {
    fn of_weight(weight: i128) -> Self {
        let mask = (1_i128 << BITS) - 1;
        let part = |shift: u32| u64::try_from((weight >> shift) & mask).unwrap_or_default();
        Self { shared: part(2 * BITS), excused: part(BITS), right: part(0) }
    }
}

/// Finds the best pairing in which neither side changes its order. `pairs` has a row for each gold,
/// with the same number of calls in each.
pub(super) fn in_order(pairs: &[Vec<Pair>]) -> Sum {
    let width = pairs.first().map_or(0, Vec::len);
    // Best sums of the golds so far with the first 0, 1, 2, ... calls.
    let mut before = vec![0_i128; width + 1];
    for row in pairs {
        let mut now = vec![0_i128; 1];
        let mut left = 0;
        for (pair, above) in row.iter().zip(before.windows(2)) {
            let [diagonal, above] = above else { continue };
            left = left.max(*above).max(diagonal + pair.weight());
            now.push(left);
        }
        before = now;
    }
    Sum::of_weight(before.last().copied().unwrap_or_default())
}

/// Finds the best pairing whatever the order.
///
/// The Hungarian method: it takes rows x rows x columns steps, of which the shorter side is rows.
pub(super) fn any_order(pairs: &[Vec<Pair>]) -> Sum {
    let width = pairs.first().map_or(0, Vec::len);
    let weights: Vec<Vec<i128>> = if width >= pairs.len() {
        pairs.iter().map(|row| row.iter().map(|pair| pair.weight()).collect()).collect()
    } else {
        let column = |at: usize| {
            pairs.iter().map(|row| row.get(at).copied().unwrap_or_default().weight()).collect()
        };
        (0..width).map(column).collect()
    };
    let mut assignment = Assignment::new(&weights);
    for row in 0..weights.len() {
        assignment.add(row);
    }
    Sum::of_weight(assignment.total())
}

/// The rows that have a column so far, with the prices that prove the choice to be the best.
struct Assignment<'a> {
    weights: &'a [Vec<i128>],
    of_row: Vec<i128>,
    of_column: Vec<i128>,
    /// Row of each column.
    rows: Vec<Option<usize>>,
}

impl<'a> Assignment<'a> {
    fn new(weights: &'a [Vec<i128>]) -> Self {
        let width = weights.first().map_or(0, Vec::len);
        Self {
            weights,
            of_row: vec![0; weights.len()],
            of_column: vec![0; width],
            rows: vec![None; width],
        }
    }

    /// Returns by how much a pair falls short of its prices.
    fn slack(&self, row: usize, column: usize) -> i128 {
        -self.weight(row, column) - at(&self.of_row, row) - at(&self.of_column, column)
    }

    fn weight(&self, row: usize, column: usize) -> i128 {
        self.weights.get(row).map_or(0, |row| at(row, column))
    }

    /// Gives `row` a column, moving other rows where that is better for all.
    fn add(&mut self, row: usize) {
        let width = self.rows.len();
        let mut slacks = vec![i128::MAX; width];
        let mut from: Vec<Option<usize>> = vec![None; width];
        let mut done = vec![false; width];
        let (mut current, mut column) = (row, None);
        loop {
            let mut best: Option<(i128, usize)> = None;
            for place in 0..width {
                if at(&done, place) {
                    continue;
                }
                let slack = self.slack(current, place);
                if slack < at(&slacks, place) {
                    put(&mut slacks, place, slack);
                    put(&mut from, place, column);
                }
                let least = (at(&slacks, place), place);
                best = Some(best.map_or(least, |best| best.min(least)));
            }
            // There are at least as many columns as rows.
            let Some((step, next)) = best else { return };
            self.reprice(row, step, &done);
            for (slack, done) in slacks.iter_mut().zip(&done) {
                *slack = if *done { *slack } else { slack.saturating_sub(step) };
            }
            put(&mut done, next, true);
            column = Some(next);
            match at(&self.rows, next) {
                Some(taken) => current = taken,
                None => break,
            }
        }
        // Along the way back, each column takes the row of the one before it.
        while let Some(place) = column {
            let before = at(&from, place);
            let moved = before.map_or(Some(row), |before| at(&self.rows, before));
            put(&mut self.rows, place, moved);
            column = before;
        }
    }

    /// Moves the prices of the new row, and of the columns that were reached with their rows.
    fn reprice(&mut self, row: usize, step: i128, done: &[bool]) {
        let price = at(&self.of_row, row) + step;
        put(&mut self.of_row, row, price);
        for place in (0..done.len()).filter(|&place| at(done, place)) {
            let price = at(&self.of_column, place) - step;
            put(&mut self.of_column, place, price);
            if let Some(row) = at(&self.rows, place) {
                let price = at(&self.of_row, row) + step;
                put(&mut self.of_row, row, price);
            }
        }
    }

    fn total(&self) -> i128 {
        let places = self.rows.iter().enumerate();
        places.filter_map(|(column, row)| row.map(|row| self.weight(row, column))).sum()
    }
}

fn at<T: Copy + Default>(items: &[T], place: usize) -> T {
    items.get(place).copied().unwrap_or_default()
}

fn put<T>(items: &mut [T], place: usize, value: T) {
    if let Some(item) = items.get_mut(place) {
        *item = value;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn best(pairs: &[Vec<Pair>], ordered: bool) -> i128 {
        fn go(pairs: &[Vec<Pair>], row: usize, used: &mut Vec<usize>, ordered: bool) -> i128 {
            let Some(of_row) = pairs.get(row) else { return 0 };
            let mut best = go(pairs, row + 1, used, ordered);
            for (column, pair) in of_row.iter().enumerate() {
                let is_behind = used.last().is_none_or(|&last| column > last);
                if used.contains(&column) || (ordered && !is_behind) {
                    continue;
                }
                used.push(column);
                best = best.max(pair.weight() + go(pairs, row + 1, used, ordered));
                used.pop();
            }
            best
        }
        go(pairs, 0, &mut Vec::new(), ordered)
    }

    fn any_pairs() -> impl Strategy<Value = Vec<Vec<Pair>>> {
        let pair = (0_u64..4, 0_u64..4, any::<bool>())
            .prop_map(|(shared, excused, is_right)| Pair { shared, excused, is_right });
        (0_usize..5, 0_usize..5).prop_flat_map(move |(rows, columns)| {
            prop::collection::vec(prop::collection::vec(pair.clone(), columns), rows)
        })
    }

    #[test]
    fn the_best_pairing_is_not_the_greedy_one() {
        let pair = |shared| Pair { shared, ..Pair::default() };
        let pairs = [vec![pair(3), pair(2)], vec![pair(3), pair(0)]];
        assert_eq!(any_order(&pairs).shared, 5);
        assert_eq!(in_order(&pairs).shared, 3);
        assert_eq!(any_order(&[]), Sum::default());
        assert_eq!(any_order(&[vec![], vec![]]), Sum::default());
    }

    proptest! {
        #[test]
        fn no_pairing_is_better(pairs in any_pairs()) {
            prop_assert_eq!(any_order(&pairs), Sum::of_weight(best(&pairs, false)));
            prop_assert_eq!(in_order(&pairs), Sum::of_weight(best(&pairs, true)));
        }
    }
}
