//! The charge: usage times rates, exact, rounded half to even once.

use super::catalog::{Catalog, Query, RATE_PARTS, Rates};
use super::money::{PicoUsd, divide_half_even};
use crate::usage::{Dimension, Usage};
use rust_decimal::Decimal;

/// What usage costs. `unpriced` is a state of its own: it is never the same as free.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Charge {
    pub amount: PicoUsd,
    /// The same before it was rounded, in [`PER`]ths.
    exact: i128,
    /// What was used and has no rate; `amount` leaves it out.
    pub unpriced: Vec<Dimension>,
    /// No model of this name is in the catalog, or none of its prices holds.
    pub unknown_model: bool,
    /// The tier that served has no price of its own and was charged as standard.
    pub unknown_tier: bool,
    /// The same of the region where it was served.
    pub unknown_region: bool,
    /// The amount does not fit; it is the largest that does.
    pub overflow: bool,
}

impl Charge {
    /// The same with a markup, rounded once.
    #[must_use]
    pub fn times(mut self, factor: Decimal) -> Self {
        let per = 10i128.checked_pow(factor.scale()).and_then(|power| PER.checked_mul(power));
        match self.exact.checked_mul(factor.mantissa()).zip(per) {
            Some((exact, per)) => self.amount = PicoUsd(divide_half_even(exact, per)),
            None => self.overflow = true,
        }
        self
    }

    /// The sum, rounded once.
    #[must_use]
    pub fn plus(mut self, other: Self) -> Self {
        match self.exact.checked_add(other.exact) {
            Some(exact) => self.exact = exact,
            None => self.overflow = true,
        }
        self.amount = PicoUsd(divide_half_even(self.exact, PER));
        for dimension in other.unpriced {
            if !self.unpriced.contains(&dimension) {
                self.unpriced.push(dimension);
            }
        }
        self.unknown_model |= other.unknown_model;
        self.unknown_tier |= other.unknown_tier;
        self.unknown_region |= other.unknown_region;
        self.overflow |= other.overflow;
        self
    }

    /// True if nothing that was used lacks a rate.
    pub fn is_priced(&self) -> bool {
        !self.unknown_model && self.unpriced.is_empty()
    }
}

/// So many parts of a rate make a pico-dollar per unit: rates are in atto-dollars per million.
const PER: i128 = RATE_PARTS * 1_000_000 * 1_000_000;

/// Charges one line of usage. `requests` is 1 for a line that stands for a request of its own (some models cost a fee
/// a request), 0 for a round within one.
pub fn charge(catalog: &Catalog, query: &Query<'_>, usage: &Usage, requests: u64) -> Charge {
    let model = catalog.model(query.provider, query.model);
    let Some((model, (price, tier_known))) = model.and_then(|model| Some((model, model.price(query)?))) else {
        return Charge { unknown_model: true, ..Charge::default() };
    };
    // A price made for the region says what it comes to there.
    let percent = if price.region.is_some() { None } else { model.percent(query.region) };
    let rates = price.rates_for(usage);
    let fee = rates.of(Dimension::Request).map(|_| (Dimension::Request, requests));
    let at_least = |dimension: Dimension| price.minimum.iter().find(|(of, _)| *of == dimension).map_or(0, |(_, count)| *count);
    let billed = usage.iter().map(|(dimension, count)| (dimension, if count > 0 { count.max(at_least(dimension)) } else { 0 }));
    let mut charge = total(&rates, percent, billed.chain(fee));
    charge.unknown_tier = !tier_known;
    charge.unknown_region = !query.is_anywhere() && price.region.is_none() && percent.is_none();
    charge
}

/// `percent` is what every rate but fees is multiplied by, in hundredths; none is 100.
fn total(rates: &Rates, percent: Option<i128>, counts: impl Iterator<Item = (Dimension, u64)>) -> Charge {
    let (mut charge, mut sum) = (Charge::default(), Some(0i128));
    for (dimension, count) in counts.filter(|(_, count)| *count > 0) {
        match rates.resolve(dimension) {
            Some(rate) => {
                // Exact: rates are multiples of [`RATE_PARTS`].
                let rate = match percent.filter(|_| !dimension.is_fee()) {
                    Some(percent) => rate.checked_mul(percent).map(|rate| rate / 100),
                    None => Some(rate),
                };
                sum = sum.zip(rate).and_then(|(sum, rate)| sum.checked_add(rate.checked_mul(i128::from(count))?));
            }
            None => charge.unpriced.push(dimension),
        }
    }
    charge.overflow = sum.is_none();
    charge.exact = sum.unwrap_or(i128::MAX / 4);
    charge.amount = PicoUsd(divide_half_even(charge.exact, PER));
    charge
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(of: &[(Dimension, i128)]) -> Rates {
        let mut rates = Rates::default();
        of.iter().for_each(|(dimension, rate)| rates.set(*dimension, *rate));
        rates
    }

    #[test]
    fn multiplies_exactly_and_falls_back_to_what_contains() {
        // $0.0375 and $10 per million tokens.
        let rates =
            rates(&[(Dimension::Input, RATE_PARTS * 37_500_000_000_000_000), (Dimension::Output, RATE_PARTS * 10_000_000_000_000_000_000)]);
        let charge = total(&rates, None, [(Dimension::Input, 3), (Dimension::CacheRead, 1), (Dimension::Reasoning, 2)].into_iter());
        assert_eq!((charge.amount.0, charge.is_priced()), (4 * 37_500 + 2 * 10_000_000, true));
    }

    #[test]
    fn a_region_multiplies_rates_but_no_fees() {
        let rates = rates(&[(Dimension::Input, PER), (Dimension::WebSearch, PER)]);
        let counts = || [(Dimension::Input, 10), (Dimension::WebSearch, 10)].into_iter();
        assert_eq!([None, Some(110), Some(50)].map(|percent| total(&rates, percent, counts()).amount.0), [20, 21, 15]);
    }

    #[test]
    fn says_what_has_no_rate_but_not_what_was_not_used() {
        let charge = total(&rates(&[(Dimension::Input, 1)]), None, [(Dimension::Output, 0), (Dimension::WebSearch, 2)].into_iter());
        assert_eq!(charge.unpriced, [Dimension::WebSearch]);
        assert!(!charge.is_priced());
    }

    #[test]
    fn marks_up_exactly() {
        // A third of a pico-dollar, twelve times, at 1.25: five; rounded first it would be none.
        let charge = |rate: i128, count| total(&rates(&[(Dimension::Input, rate)]), None, [(Dimension::Input, count)].into_iter());
        assert_eq!(charge(PER / 3, 12).times("1.25".parse().unwrap()).amount.0, 5);
        assert_eq!(charge(PER / 3, 1).times("1.5".parse().unwrap()).amount.0, 0);
        assert_eq!(charge(PER, 7).times("0".parse().unwrap()).amount.0, 0);
        assert!(charge(i128::MAX / 8, 1).times("1000".parse().unwrap()).overflow);
    }

    #[test]
    fn rounds_once_and_notices_overflow() {
        // Two halves of a pico-dollar make one; alone each would round to none.
        let halves = rates(&[(Dimension::Input, PER / 2), (Dimension::Output, PER / 2)]);
        assert_eq!(total(&halves, None, [(Dimension::Input, 1), (Dimension::Output, 1)].into_iter()).amount.0, 1);
        let huge = rates(&[(Dimension::Input, i128::MAX / 2)]);
        assert!(total(&huge, None, [(Dimension::Input, 3)].into_iter()).overflow);
    }
}
