//! The middle of a few figures.

/// Half of the figures are at most this, and half of them at least: of an even number the mean of the two in the middle, so
/// that it is not always the better or the worse of two rounds. None of none.
pub fn median(figures: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_unstable_by(f64::total_cmp);
    let upper = *figures.get(figures.len() / 2)?;
    Some(match figures.len() % 2 {
        0 => f64::midpoint(figures[figures.len() / 2 - 1], upper),
        _ => upper,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_even_number_it_lies_between_the_two_in_the_middle() {
        let table: [(&[f64], Option<f64>); 5] = [
            (&[], None),
            (&[7.0], Some(7.0)),
            (&[3.0, 1.0], Some(2.0)),
            (&[9.0, 1.0, 2.0], Some(2.0)),
            (&[8.0, 100.0, 2.0, 4.0], Some(6.0)),
        ];
        for (figures, expected) in table {
            assert_eq!(median(figures.iter().copied()), expected, "{figures:?}");
        }
    }
}
