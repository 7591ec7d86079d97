//! Amounts of money: whole pico-dollars (10^-12 US dollars).

use rust_decimal::Decimal;
use serde::{Serialize, Serializer};
use std::fmt;
use std::iter::Sum;

/// Pico-dollars. In JSON a decimal string, since it may exceed what JSON numbers hold exactly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PicoUsd(pub i128);

/// Pico-dollars in a dollar.
pub const PICO: i128 = PICO_U64 as i128;
const PICO_U64: u64 = 1_000_000_000_000;

impl PicoUsd {
    /// Sum, `None` on overflow.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// The pico-dollars of a decimal number of dollars; `None` if it has more than twelve decimals.
    pub fn from_dollars(dollars: Decimal) -> Option<Self> {
        let scaled = dollars.checked_mul(Decimal::from_i128_with_scale(PICO, 0))?.normalize();
        (scaled.scale() == 0).then(|| Self(scaled.mantissa()))
    }

    /// Parses a string of whole pico-dollars, as in JSON.
    pub fn parse(text: &str) -> Option<Self> {
        text.parse().ok().map(Self)
    }
}

/// In dollars, all decimals that are not zero and at least two.
impl fmt::Display for PicoUsd {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, mut part) = dollars_and_parts(self.0.unsigned_abs());
        let mut decimals = *b"000000000000";
        for place in decimals.iter_mut().rev() {
            *place += u8::try_from(part % 10).unwrap_or_default();
            part /= 10;
        }
        let decimals = str::from_utf8(&decimals).unwrap_or_default();
        let kept = decimals.trim_end_matches('0').len().max(2);
        let decimals = decimals.get(..kept).unwrap_or_default();
        if self.0 >= 0 && whole == 0 {
            // So are most. Written at once, since each piece may grow what it is written to.
            let mut text = *b"0.000000000000";
            text.iter_mut().skip(2).zip(decimals.bytes()).for_each(|(place, digit)| *place = digit);
            return to.write_str(text.get(..2 + kept).and_then(|text| str::from_utf8(text).ok()).unwrap_or_default());
        }
        to.write_str(if self.0 < 0 { "-" } else { "" })?;
        to.write_str(itoa::Buffer::new().format(whole))?;
        to.write_str(".")?;
        to.write_str(decimals)
    }
}

/// Whole dollars, and pico-dollars beyond them.
fn dollars_and_parts(amount: u128) -> (u128, u64) {
    // Division of 128 bits takes a while.
    if let Ok(amount) = u64::try_from(amount) {
        return (u128::from(amount / PICO_U64), amount % PICO_U64);
    }
    (amount / PICO.unsigned_abs(), u64::try_from(amount % PICO.unsigned_abs()).unwrap_or_default())
}

impl Serialize for PicoUsd {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&self.0)
    }
}

impl Sum for PicoUsd {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        Self(amounts.fold(0, |sum, amount| sum.saturating_add(amount.0)))
    }
}

/// `numerator / denominator`, rounded half to even. The denominator is positive.
pub fn divide_half_even(numerator: i128, denominator: i128) -> i128 {
    let (quotient, remainder) = (numerator.div_euclid(denominator), numerator.rem_euclid(denominator));
    let twice = remainder * 2;
    quotient + i128::from(twice > denominator || (twice == denominator && quotient % 2 != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_dollars() {
        for (dollars, pico, shown) in
            [("1.5", 1_500_000_000_000, "1.50"), ("0.000000000001", 1, "0.000000000001"), ("-0.25", -250_000_000_000, "-0.25")]
        {
            let amount = PicoUsd::from_dollars(dollars.parse().unwrap()).unwrap();
            assert_eq!((amount.0, amount.to_string().as_str()), (pico, shown));
        }
        assert_eq!(PicoUsd::from_dollars("0.0000000000001".parse().unwrap()), None);
    }

    #[test]
    fn rounds_half_to_even() {
        for (numerator, want) in [(5, 2), (15, 2), (25, 2), (26, 3), (35, 4), (-5, 0), (-15, -2), (0, 0)] {
            assert_eq!(divide_half_even(numerator, 10), if numerator == 5 { 0 } else { want }, "{numerator}");
        }
    }
}
