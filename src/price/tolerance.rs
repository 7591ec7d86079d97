//! How far the cost that a provider states may differ from the charge.

use super::money::PicoUsd;
use rust_decimal::Decimal;

/// Both bounds must be exceeded: small amounts differ by rounding alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tolerance {
    /// Percent of the stated cost.
    pub percent: Decimal,
    pub usd: PicoUsd,
}

impl Default for Tolerance {
    /// One percent and a hundredth of a cent.
    fn default() -> Self {
        Self { percent: Decimal::ONE, usd: PicoUsd(100_000_000) }
    }
}

impl Tolerance {
    /// True if the two differ by more; both are in pico-dollars.
    pub fn exceeded(&self, stated: i128, charged: i128) -> bool {
        let difference = stated.abs_diff(charged);
        let Ok(signed) = i128::try_from(difference) else { return true };
        // Cross-multiplied, so that nothing is rounded: difference * 100 * 10^scale > stated * mantissa.
        let left = signed.checked_mul(100).and_then(|left| left.checked_mul(10i128.checked_pow(self.percent.scale())?));
        let right = stated.checked_abs().and_then(|stated| stated.checked_mul(self.percent.mantissa()));
        let beyond_percent = match (left, right) {
            (Some(left), Some(right)) => left > right,
            (None, _) => true,
            (Some(_), None) => false,
        };
        beyond_percent && signed > self.usd.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_bounds_must_be_exceeded() {
        let tolerance = Tolerance::default();
        for (stated, charged, want) in [
            (1_000_000_000_000, 1_000_000_000_000, false),
            (1_000_000_000_000, 1_010_000_000_000, false),
            (1_000_000_000_000, 1_010_000_000_001, true),
            (1_000_000_000_000, 989_999_999_999, true),
            // A tenth of a cent is ten percent, but little.
            (100_000_000, 200_000_000, false),
            (100_000_000, 200_000_001, true),
            (0, 100_000_001, true),
            (i128::MAX, 0, true),
        ] {
            assert_eq!(tolerance.exceeded(stated, charged), want, "{stated} {charged}");
        }
    }
}
