//! Long recordings: what a thread did within a slice of time, not when in it, so that a page of hours stays small.

use rustc_hash::FxHashMap;

use super::data::Cell;

/// Most cells of a page; a million take 2 to 4 MB.
const MOST_CELLS: usize = 1_500_000;

/// Lengths of slices that are tried, microseconds: steps that people read easily.
const LENGTHS_US: [u64; 12] = [
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    60_000_000,
    600_000_000,
];

/// The cells of each thread, and the length of slices in microseconds: 0 where each cell is where it was.
pub(super) fn cut(cells: Vec<Vec<Cell>>) -> (Vec<Vec<Cell>>, u64) {
    cut_to(cells, MOST_CELLS)
}

fn cut_to(cells: Vec<Vec<Cell>>, most: usize) -> (Vec<Vec<Cell>>, u64) {
    if cells.iter().map(Vec::len).sum::<usize>() <= most {
        return (cells, 0);
    }
    let mut best = (cells, 0);
    for length_us in LENGTHS_US {
        let sliced = best.0.iter().map(|cells| slices(cells, length_us));
        best = (sliced.collect(), length_us);
        if best.0.iter().map(Vec::len).sum::<usize>() <= most {
            break;
        }
    }
    best
}

/// Cells of the same node and state within a slice are one. A slice ends with a cell, so that its time stays what it was.
fn slices(cells: &[Cell], length_us: u64) -> Vec<Cell> {
    let mut sliced: Vec<Cell> = Vec::new();
    let mut known: FxHashMap<(u32, u8), usize> = FxHashMap::default();
    let (mut time_us, mut slice) = (0u64, 0);
    for cell in cells {
        if time_us / length_us != slice {
            slice = time_us / length_us;
            known.clear();
        }
        time_us = time_us.saturating_add(cell.wall);
        let at = *known.entry((cell.node, cell.state)).or_insert(sliced.len());
        match sliced.get_mut(at) {
            Some(same) => {
                same.wall += cell.wall;
                same.weight += cell.weight;
            }
            None => sliced.push(*cell),
        }
    }
    sliced
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(node: u32, wall: u64) -> Cell {
        Cell {
            node,
            wall,
            weight: wall / 2,
            state: 1,
        }
    }

    #[test]
    fn slices_keep_times_and_begin_where_cells_began() {
        let cells: Vec<Cell> = (0..10_000).map(|at| cell(at % 3, 700)).collect();
        let (cut, length_us) = cut_to(vec![cells.clone(), Vec::new()], 3000);
        assert_eq!(length_us, 10_000);
        assert!(
            cut[1].is_empty() && cut[0].len() <= 3000,
            "{}",
            cut[0].len()
        );
        for node in 0..3 {
            let sum = |cells: &[Cell]| {
                let of = cells.iter().filter(|cell| cell.node == node);
                of.fold((0, 0), |sum, cell| (sum.0 + cell.wall, sum.1 + cell.weight))
            };
            assert_eq!(sum(&cut[0]), sum(&cells));
        }
        let half = |cells: &[Cell]| {
            let mut time = 0;
            let before = cells.iter().take_while(|cell| {
                time += cell.wall;
                time <= 3_500_000
            });
            before.map(|cell| cell.wall).sum::<u64>()
        };
        assert!(half(&cut[0]).abs_diff(half(&cells)) <= 20_000);
        let (same, length_us) = cut_to(vec![cells.clone()], 10_000);
        assert_eq!((same[0].len(), length_us), (cells.len(), 0));
    }

    #[test]
    fn what_cannot_be_made_small_is_still_bounded_by_its_nodes() {
        let cells: Vec<Cell> = (0..5000).map(|at| cell(at, 1_000_000)).collect();
        let (cut, length_us) = cut_to(vec![cells], 10);
        assert_eq!((cut[0].len(), length_us), (5000, 600_000_000));
    }
}
