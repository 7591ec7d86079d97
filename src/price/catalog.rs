//! The catalog: which rates held for a model at a moment. Lookups touch no file and no lock.

use super::moment::{Moment, Weekdays};
use crate::provider::fits;
use crate::usage::{Dimension, Usage};
use ahash::{HashMap, HashSet};
use std::borrow::Cow;
use std::sync::Arc;

/// What a rate of one means: this fraction of an atto-dollar (10^-18) per million units. Some published rates are thirds
/// that someone wrote down with seventeen decimals; some are by the hour of what is counted in seconds.
pub const RATE_PARTS: i128 = 3600;

/// Rates per dimension, in [`RATE_PARTS`]; a price names a few of the dimensions there are. In their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rates(Vec<(Dimension, i128)>);

impl Rates {
    pub fn of(&self, dimension: Dimension) -> Option<i128> {
        self.0.iter().find(|(known, _)| *known == dimension).map(|(_, rate)| *rate)
    }

    pub fn set(&mut self, dimension: Dimension, rate: i128) {
        match self.0.binary_search_by_key(&(dimension as usize), |(known, _)| *known as usize) {
            Ok(at) => self.0.get_mut(at).into_iter().for_each(|(_, known)| *known = rate),
            Err(at) => self.0.insert(at, (dimension, rate)),
        }
    }

    /// The dimension's own rate or that of what contains it.
    pub fn resolve(&self, dimension: Dimension) -> Option<i128> {
        self.of(dimension).or_else(|| self.resolve(dimension.parent()?))
    }

    /// These rates with those of `over` in place of their own.
    pub(super) fn overlaid(&self, over: &Self) -> Self {
        let mut rates = self.clone();
        over.0.iter().for_each(|(dimension, rate)| rates.set(*dimension, *rate));
        rates
    }
}

/// Rates for requests with many input tokens: a cliff, they hold for all of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tier {
    pub over: u64,
    /// Whether `over` tokens exactly belong to the tier; providers differ.
    pub inclusive: bool,
    pub rates: Rates,
}

/// One price of a model and the conditions under which it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Price {
    pub service_tier: Option<String>,
    pub region: Option<String>,
    pub batch: bool,
    /// Holds from here on.
    pub from: Option<Moment>,
    /// Holds until before.
    pub until: Option<Moment>,
    /// Minutes of the UTC day, from and until before; may wrap around midnight.
    pub utc_minutes: Option<(i64, i64)>,
    /// Days of the week, in UTC.
    pub weekdays: Option<Weekdays>,
    /// Days on which the price does not hold, as [`Moment::day`] counts them.
    pub except: Vec<i64>,
    pub rates: Rates,
    pub tiers: Vec<Tier>,
    /// What is charged at least, of what was used at all.
    pub minimum: Vec<(Dimension, u64)>,
}

impl Price {
    /// True if it holds for requests of which nothing special is said.
    pub fn is_standard(&self) -> bool {
        self.service_tier.is_none() && self.region.is_none() && !self.batch
    }

    /// True if it holds at some times of the day or the week only.
    pub fn is_timed(&self) -> bool {
        self.utc_minutes.is_some() || self.weekdays.is_some() || !self.except.is_empty()
    }

    fn holds(&self, query: &Query<'_>) -> bool {
        let named = |condition: &Option<String>, actual: &str| condition.as_deref().is_none_or(|name| name.eq_ignore_ascii_case(actual));
        let minute = query.at.minute_of_day();
        named(&self.service_tier, query.tier)
            && named(&self.region, query.region)
            && (!self.batch || query.is_batch())
            && self.from.is_none_or(|from| from <= query.at)
            && self.until.is_none_or(|until| query.at < until)
            && self.weekdays.is_none_or(|days| days.contains(query.at))
            && !self.except.contains(&query.at.day())
            && self
                .utc_minutes
                .is_none_or(|(from, until)| if from <= until { (from..until).contains(&minute) } else { minute >= from || minute < until })
    }

    /// The rates for this much input.
    pub fn rates_for(&self, usage: &Usage) -> Cow<'_, Rates> {
        let input = usage.sum(Dimension::is_input).unwrap_or(0);
        let reached = self.tiers.iter().filter(|tier| if tier.inclusive { input >= tier.over } else { input > tier.over });
        match reached.max_by_key(|tier| tier.over) {
            Some(tier) => Cow::Owned(self.rates.overlaid(&tier.rates)),
            None => Cow::Borrowed(&self.rates),
        }
    }
}

/// What is looked up.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    pub provider: &'a str,
    pub model: &'a str,
    pub tier: &'a str,
    pub region: &'a str,
    pub at: Moment,
}

/// The tier of items of a batch.
pub const BATCH: &str = "batch";

impl Query<'_> {
    fn is_batch(&self) -> bool {
        self.tier == BATCH
    }

    /// True if it does not matter where it was served: `inference_geo` in
    /// <https://platform.claude.com/docs/en/build-with-claude/data-residency>.
    pub fn is_anywhere(&self) -> bool {
        matches!(self.region, "" | "global" | "not_available")
    }

    /// True if the tier is how requests are served when nothing is said.
    pub fn is_standard(&self) -> bool {
        matches!(self.tier, "" | "default" | "standard" | "auto" | "on_demand" | "standard_only")
    }
}

/// A model's prices, in the order of their file: the last that holds wins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    pub id: String,
    /// Patterns of names that are other models, although a pattern of this one fits. Its exact names are not affected.
    pub not: Vec<String>,
    pub prices: Vec<Price>,
    pub regions: Vec<Region>,
    /// The maximum of output tokens of one response.
    pub max_output: Option<u32>,
    /// Who states the prices.
    pub origin: Option<Arc<Origin>>,
}

/// Where prices come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The version of the price file, or the publisher.
    pub version: String,
    /// The date on which its sources were read.
    pub checked: Option<String>,
    /// Addresses of pages that state the prices.
    pub sources: Vec<String>,
}

/// What being served in a region multiplies, in whichever tier: every rate, but no fee.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    pub name: String,
    /// In hundredths, so that no rate is rounded: [`RATE_PARTS`] is a multiple of them.
    pub percent: i128,
}

impl Model {
    /// The price that holds, and whether it was made for the tier that served (or that is the standard one).
    pub fn price(&self, query: &Query<'_>) -> Option<(&Price, bool)> {
        let price = self.prices.iter().rfind(|price| price.holds(query))?;
        Some((price, query.is_standard() || price.service_tier.is_some() || price.batch))
    }

    /// What the region multiplies, in hundredths, if that is known of it.
    pub fn percent(&self, region: &str) -> Option<i128> {
        self.regions.iter().find(|known| known.name.eq_ignore_ascii_case(region)).map(|known| known.percent)
    }

    /// Regions that have a price of their own, by name; what holds everywhere first, without one.
    pub fn regions(&self) -> impl Iterator<Item = &str> {
        let named = self.prices.iter().filter_map(|price| price.region.as_deref());
        std::iter::once("").chain(self.regions.iter().map(|region| region.name.as_str())).chain(named)
    }
}

/// The model's name without the resource in front of it: `models/NAME` at Google AI, `publishers/google/models/NAME` and
/// what comes before it at Vertex AI. `None` if there is none.
/// <https://ai.google.dev/api/models>, <https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference>
fn without_resource(model: &str) -> Option<&str> {
    let publisher = model.rsplit_once("publishers/google/models/").map(|(_, name)| name);
    publisher.or_else(|| model.strip_prefix("models/")).filter(|name| !name.is_empty())
}

#[derive(Clone, Debug, Default)]
struct ProviderPrices {
    models: Vec<Model>,
    /// By lower-case name.
    exact: HashMap<String, usize>,
    /// Patterns with a `*`, the longest first.
    patterns: Vec<(String, usize)>,
    /// Whose models it sells, too, at their makers' prices.
    also: Vec<String>,
}

impl ProviderPrices {
    /// The model of this name: by an exact name, else by the longest pattern.
    fn named(&self, model: &str) -> Option<&Model> {
        if let Some(place) = self.exact.get(model).or_else(|| self.exact.get(&model.to_ascii_lowercase())) {
            return self.models.get(*place);
        }
        let fitting = self.patterns.iter().filter(|(pattern, _)| fits(model, pattern)).filter_map(|(_, place)| self.models.get(*place));
        fitting.into_iter().find(|found| !found.not.iter().any(|pattern| fits(model, pattern)))
    }
}

/// All prices. Immutable once loaded.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// Of what it was made, as stamped on entries.
    pub version: String,
    providers: HashMap<String, ProviderPrices>,
}

impl Catalog {
    /// The model that bears this name at a provider, perhaps by a pattern; or at one whose models it sells.
    pub fn model(&self, provider: &str, model: &str) -> Option<&Model> {
        let own = self.own_model(provider, model);
        own.or_else(|| self.providers.get(provider)?.also.iter().find_map(|other| self.own_model(other, model)))
    }

    fn own_model(&self, provider: &str, model: &str) -> Option<&Model> {
        let prices = self.providers.get(provider)?;
        prices.named(model).or_else(|| prices.named(without_resource(model)?))
    }

    /// Providers that have prices, by name.
    pub fn providers(&self) -> impl Iterator<Item = &str> {
        let mut names: Vec<&str> = self.providers.keys().map(String::as_str).collect();
        names.sort_unstable();
        names.into_iter()
    }

    /// Models of a provider, in the order of their files.
    pub fn models(&self, provider: &str) -> impl Iterator<Item = &Model> {
        self.providers.get(provider).into_iter().flat_map(|prices| &prices.models)
    }

    /// Models of a provider and, after them, those of others that it sells, each id once.
    pub fn sold(&self, provider: &str) -> impl Iterator<Item = &Model> {
        let also = self.providers.get(provider).into_iter().flat_map(|prices| &prices.also);
        let mut seen = HashSet::default();
        self.models(provider).chain(also.flat_map(|other| self.models(other))).filter(move |model| seen.insert(model.id.as_str()))
    }

    /// The maximum of output tokens of one response of this model, if it is known.
    pub fn max_output(&self, provider: &str, model: &str) -> Option<u64> {
        self.model(provider, model)?.max_output.map(u64::from)
    }

    /// Adds a model, or replaces the one of the same id under all its names. Regions and the output limit stay unless the
    /// new model states its own. A name of another model goes to this one, so that overlays win.
    pub fn add(&mut self, provider: &str, mut model: Model, names: &[&str]) {
        // They stay as long as the process, and most have one price: no room for more.
        model.prices.shrink_to_fit();
        model.prices.iter_mut().for_each(|price| price.tiers.shrink_to_fit());
        let prices = self.providers.entry(provider.to_owned()).or_default();
        let known = prices.models.iter().position(|other| other.id == model.id);
        let place = known.unwrap_or(prices.models.len());
        match prices.models.get_mut(place) {
            Some(old) => {
                let unsaid = old.regions.drain(..).filter(|region| model.percent(&region.name).is_none()).collect::<Vec<_>>();
                model.regions.extend(unsaid);
                model.max_output = model.max_output.or(old.max_output);
                *old = model;
            }
            None => prices.models.push(model),
        }
        for name in names {
            if name.contains('*') {
                prices.patterns.retain(|(pattern, _)| pattern != name);
                prices.patterns.push(((*name).to_owned(), place));
            } else {
                prices.exact.insert(name.to_ascii_lowercase(), place);
            }
        }
    }

    /// Says whose models a provider sells besides its own.
    pub fn also(&mut self, provider: &str, others: &[&str]) {
        let prices = self.providers.entry(provider.to_owned()).or_default();
        prices.also.extend(others.iter().map(|other| (*other).to_owned()));
    }

    /// Looks prices of `name` up under that name first, then as those of `next` and of what `next` sells.
    pub fn prefer(&mut self, name: &str, next: &str) {
        let others = self.providers.get(next).map(|prices| prices.also.clone()).unwrap_or_default();
        self.also(name, &[next]);
        self.also(name, &others.iter().map(String::as_str).filter(|other| *other != name).collect::<Vec<_>>());
    }

    /// True if a provider sells at the prices of `other`, which may be itself.
    pub fn sells(&self, provider: &str, other: &str) -> bool {
        provider == other || self.providers.get(provider).is_some_and(|prices| prices.also.iter().any(|also| also == other))
    }

    /// True if a name or pattern leads to this model of a provider.
    pub fn has_name(&self, provider: &str, id: &str) -> bool {
        self.providers.get(provider).is_some_and(|prices| {
            let mut places = prices.exact.values().chain(prices.patterns.iter().map(|(_, place)| place));
            places.any(|place| prices.models.get(*place).is_some_and(|model| model.id == id))
        })
    }

    /// Orders the patterns, after everything was added.
    pub fn seal(&mut self) {
        for prices in self.providers.values_mut() {
            prices.patterns.sort_by_key(|(pattern, _)| std::cmp::Reverse(pattern.len()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(id: &str, rate: i128) -> Model {
        let mut price = Price::default();
        price.rates.set(Dimension::Input, rate);
        Model { id: id.to_owned(), prices: vec![price], ..Model::default() }
    }

    fn rate(catalog: &Catalog, name: &str) -> Option<i128> {
        catalog.model("p", name)?.prices[0].rates.of(Dimension::Input)
    }

    #[test]
    fn finds_exact_names_before_longer_patterns_before_shorter() {
        let mut catalog = Catalog::default();
        catalog.add("p", model("a", 1), &["a-*"]);
        catalog.add("p", model("ab", 2), &["a-b*"]);
        catalog.add("p", model("abc", 3), &["a-b-c"]);
        catalog.seal();
        assert_eq!(["a-x", "A-B-d", "a-b-c", "z"].map(|name| rate(&catalog, name)), [Some(1), Some(2), Some(3), None]);
        assert!(catalog.model("q", "a-x").is_none());
    }

    #[test]
    fn excluded_names_fall_to_shorter_patterns() {
        let mut catalog = Catalog::default();
        catalog.add("p", Model { not: vec!["*-tts".to_owned()], ..model("a", 1) }, &["a-b-tts", "a-b*"]);
        catalog.add("p", model("b", 2), &["a*"]);
        catalog.seal();
        assert_eq!(["a-b-tts", "a-b-c", "a-b-c-tts", "A-B-C-TTS"].map(|name| rate(&catalog, name)), [Some(1), Some(1), Some(2), Some(2)]);
    }

    #[test]
    fn resource_names_are_the_model() {
        let mut catalog = Catalog::default();
        catalog.add("p", model("a", 1), &["a-*"]);
        catalog.add("q", model("m", 2), &["models/m"]);
        catalog.also("p", &["q"]);
        catalog.seal();
        let names = ["models/a-1", "publishers/google/models/a-1", "projects/x/locations/y/publishers/google/models/a-1", "models/m"];
        assert_eq!(names.map(|name| rate(&catalog, name)), [Some(1), Some(1), Some(1), Some(2)]);
        assert_eq!(["models/", "publishers/google/models/", "m", "x/models/a-1"].map(|name| rate(&catalog, name)), [None; 4]);
    }

    #[test]
    fn sells_what_others_make() {
        let mut catalog = Catalog::default();
        catalog.add("p", model("a", 1), &["a"]);
        catalog.add("q", model("a", 2), &["a"]);
        catalog.add("q", model("b", 3), &["b"]);
        catalog.also("p", &["q"]);
        catalog.seal();
        assert_eq!(["a", "b", "c"].map(|name| rate(&catalog, name)), [Some(1), Some(3), None]);
    }

    #[test]
    fn own_prices_come_before_those_of_another() {
        let mut catalog = Catalog::default();
        catalog.add("p", model("a", 1), &["a", "x"]);
        catalog.add("q", model("a", 2), &["a"]);
        catalog.add("q", model("b", 3), &["b", "c"]);
        catalog.add("r", model("c", 4), &["c", "d"]);
        catalog.also("q", &["r"]);
        catalog.prefer("p", "q");
        catalog.seal();
        assert_eq!(["a", "b", "c", "d", "e"].map(|name| rate(&catalog, name)), [Some(1), Some(3), Some(3), Some(4), None]);
        assert_eq!(["p", "q", "r", "s"].map(|other| catalog.sells("p", other)), [true, true, true, false]);
        catalog.add("p", model("a-2", 5), &["x", "a"]);
        assert_eq!(["a", "a-2"].map(|id| catalog.has_name("p", id)), [false, true]);
    }

    #[test]
    fn a_later_model_of_the_same_id_replaces_it() {
        let mut catalog = Catalog::default();
        catalog.add("p", model("a", 1), &["a", "a-2025"]);
        catalog.add("p", model("a", 2), &["a"]);
        catalog.seal();
        assert_eq!(["a", "a-2025"].map(|name| rate(&catalog, name)), [Some(2), Some(2)]);
        assert_eq!(catalog.models("p").count(), 1);
    }

    #[test]
    fn what_is_said_of_regions_outlives_new_prices() {
        let region = |name: &str, percent| Region { name: name.to_owned(), percent };
        let mut catalog = Catalog::default();
        catalog.add("p", Model { regions: vec![region("us", 110), region("eu", 120)], ..model("a", 1) }, &["a"]);
        catalog.add("p", model("a", 2), &["a"]);
        catalog.add("p", Model { regions: vec![region("eu", 105)], ..model("a", 3) }, &["a"]);
        let found = catalog.model("p", "a").unwrap();
        assert_eq!(["us", "EU", "jp"].map(|region| found.percent(region)), [Some(110), Some(105), None]);
        assert_eq!((found.regions().collect::<Vec<_>>(), rate(&catalog, "a")), (vec!["", "eu", "us"], Some(3)));
    }

    #[test]
    fn output_limits_outlive_new_prices() {
        let mut catalog = Catalog::default();
        catalog.add("p", Model { max_output: Some(4096), ..model("a", 1) }, &["a"]);
        catalog.add("p", model("a", 2), &["a"]);
        assert_eq!((catalog.max_output("p", "a"), catalog.max_output("p", "b")), (Some(4096), None));
        catalog.add("p", Model { max_output: Some(8192), ..model("a", 2) }, &["a"]);
        assert_eq!(catalog.max_output("p", "a"), Some(8192));
    }

    #[test]
    fn conditions_and_tiers_hold_at_their_edges() {
        let at = |unix_s| Query { provider: "p", model: "a", tier: "", region: "", at: Moment { unix_s } };
        let night = Price {
            utc_minutes: Some((22 * 60, 60)),
            from: Some(Moment { unix_s: 0 }),
            until: Some(Moment { unix_s: 86_400 }),
            ..Price::default()
        };
        for (unix_s, want) in [(-1, false), (0, true), (3_599, true), (3_600, false), (22 * 3_600, true), (86_399, true), (86_400, false)] {
            assert_eq!(night.holds(&at(unix_s)), want, "{unix_s}");
        }
        let mut tiered = Price::default();
        let mut above = Rates::default();
        above.set(Dimension::Input, 9);
        tiered.rates.set(Dimension::Input, 5);
        for (inclusive, input, want) in [(false, 100, 5), (false, 101, 9), (true, 99, 5), (true, 100, 9)] {
            tiered.tiers = vec![Tier { over: 100, inclusive, rates: above.clone() }];
            let usage: Usage = [(Dimension::CacheRead, 40), (Dimension::Input, input - 40)].into_iter().collect();
            assert_eq!(tiered.rates_for(&usage).of(Dimension::Input), Some(want), "{inclusive} {input}");
        }
    }
}
