//! Arithmetic of what was measured.

use std::time::Duration;

/// Counts stay far below 2⁵³, where floats begin to round.
#[expect(clippy::cast_precision_loss, reason = "counts stay below 2⁵³")]
pub(crate) fn float(count: usize) -> f64 {
    count as f64
}

/// The middle of some figures, the upper one of two; `None` of none.
pub(crate) fn median(figures: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied()
}

/// The time within which `percent` of the calls were answered (nearest rank), in milliseconds; 0 of none.
pub(crate) fn percentile(times: &mut [Duration], percent: usize) -> f64 {
    times.sort_unstable();
    let rank = (times.len() * percent).div_ceil(100).saturating_sub(1);
    times.get(rank).copied().unwrap_or_default().as_secs_f64() * 1000.0
}

/// How many times `theirs` fits into `ours`; a dash where there is nothing to compare.
pub(crate) fn ratio(ours: Option<f64>, theirs: Option<f64>) -> String {
    match (ours, theirs) {
        (Some(ours), Some(theirs)) if theirs > 0.0 => format!("{:.2}", ours / theirs),
        _ => DASH.to_owned(),
    }
}

/// A figure with as many digits as it can be trusted for.
pub(crate) fn shown(figure: Option<f64>) -> String {
    match figure {
        Some(figure) if figure.abs() >= 100.0 => format!("{figure:.0}"),
        Some(figure) if figure.abs() >= 10.0 => format!("{figure:.1}"),
        Some(figure) => format!("{figure:.2}"),
        None => DASH.to_owned(),
    }
}

/// What was not measured.
const DASH: &str = "–";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_in_any_order() {
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 3.0, 2.0]), Some(3.0));
        assert_eq!(median([]), None);
    }

    #[test]
    fn a_percentile_is_the_nearest_rank() {
        let mut times: Vec<_> = (1..=200).rev().map(Duration::from_millis).collect();
        let exact = |ms: f64, of: f64| assert!((ms - of).abs() < 1e-9, "{ms} is not {of}");
        exact(percentile(&mut times, 50), 100.0);
        exact(percentile(&mut times, 99), 198.0);
        exact(percentile(&mut times, 100), 200.0);
        exact(percentile(&mut times[..1], 99), 1.0);
        exact(percentile(&mut [], 99), 0.0);
    }

    #[test]
    fn a_ratio_needs_two_figures() {
        assert_eq!(ratio(Some(5.0), Some(2.0)), "2.50");
        assert_eq!(ratio(Some(5.0), None), "–");
        assert_eq!(ratio(None, Some(2.0)), "–");
        assert_eq!(ratio(Some(5.0), Some(0.0)), "–");
    }

    #[test]
    fn large_figures_have_no_decimals() {
        let all = [1234.5, 99.94, 9.994].map(|figure| shown(Some(figure)));
        assert_eq!(all, ["1234", "99.9", "9.99"]);
        assert_eq!(shown(None), "–");
    }
}
