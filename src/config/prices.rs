//! Reads where prices come from: published catalogs over the embedded one, the operator's files over those, and markups.

use super::Stamp;
use super::file::{Reader, absolute};
use super::units::duration;
use super::upstream::Upstream;
use crate::price::import::{Format, check_change, import, lay_over};
use crate::price::{self, Cache, Catalog, Markup, PicoUsd, Tolerance};
use crate::yaml::{Map, Node, Problem};
use rust_decimal::Decimal;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A catalog that is fetched again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    pub format: Format,
    pub url: String,
    pub every: Duration,
    pub cache: Cache,
    /// Take over changes that look like mistakes.
    pub trusted: bool,
}

/// How often a catalog is fetched unless something else is said.
const EVERY: Duration = Duration::from_secs(3600);
/// A markup beyond this is a mistake.
const FACTOR_MAX: i64 = 1000;

/// All about prices.
pub(super) struct Prices {
    pub catalog: Catalog,
    pub published: Vec<Published>,
    pub markups: Vec<Markup>,
    pub cost_tolerance: Tolerance,
    /// The operator's price files.
    pub overlays: Vec<PathBuf>,
    /// Providers that only the operator's files name.
    own: Vec<String>,
}

impl Prices {
    /// Prices an upstream by the operator's files under its own name first, then by its `prices`.
    #[must_use]
    pub(super) fn for_upstreams(mut self, upstreams: &mut [Upstream]) -> Self {
        for upstream in upstreams.iter_mut().filter(|upstream| self.own.contains(&upstream.name)) {
            if upstream.catalog != upstream.name {
                self.catalog.prefer(&upstream.name, &upstream.catalog);
                upstream.catalog.clone_from(&upstream.name);
            }
        }
        self
    }
}

impl Reader<'_> {
    pub(super) fn prices(&mut self, node: Option<Node<'_>>, data: &Path) -> Option<Prices> {
        let catalog = price::embedded().map_err(|list| self.prices.extend(list)).ok()?;
        let mut prices =
            Prices { catalog, published: vec![], markups: vec![], overlays: vec![], own: vec![], cost_tolerance: Tolerance::default() };
        let mut map = node.map(|node| Map::new(node, &mut self.problems));
        let list: Vec<_> = map.as_mut().and_then(|map| map.take("import")).and_then(Node::items).into_iter().flatten().collect();
        if list.is_empty() {
            self.import_from_environment(data, &mut prices);
        }
        list.into_iter().for_each(|node| self.import(node, data, &mut prices));
        let known: Vec<String> = prices.catalog.providers().map(str::to_owned).collect();
        if let Some(mut map) = map {
            for path in self.texts(&mut map, "overlay") {
                let path = absolute(Path::new(&path));
                self.files.push(Stamp::of(&path));
                if let Err(list) = price::overlay(&mut prices.catalog, &path.display().to_string()) {
                    self.prices.extend(list);
                }
                prices.overlays.push(path);
            }
            let own = prices.catalog.providers().filter(|provider| !known.iter().any(|known| known == provider));
            prices.own = own.map(str::to_owned).collect();
            prices.markups = map.take("markup").and_then(Node::items).into_iter().flatten().filter_map(|node| self.markup(node)).collect();
            prices.cost_tolerance = self.cost_tolerance(map.take("cost_mismatch"));
            map.finish(&mut self.problems);
        }
        Some(prices)
    }

    /// How far the cost that a provider states may differ from the charge.
    fn cost_tolerance(&mut self, node: Option<Node<'_>>) -> Tolerance {
        let mut tolerance = Tolerance::default();
        let Some(node) = node else { return tolerance };
        let mut map = Map::new(node, &mut self.problems);
        let number = |text: &str| text.parse::<Decimal>().ok().filter(|number| !number.is_sign_negative());
        let percent = |text: &str| number(text).filter(|number| *number <= Decimal::ONE_HUNDRED && number.scale() <= 6);
        if let Some(percent) = map.take_as("percent", &mut self.problems, "a number from 0 to 100 with at most six decimals", percent) {
            tolerance.percent = percent.normalize();
        }
        let dollars = |text: &str| number(text).and_then(PicoUsd::from_dollars);
        if let Some(usd) = map.take_as("usd", &mut self.problems, "an amount of US dollars with at most twelve decimals", dollars) {
            tolerance.usd = usd;
        }
        map.finish(&mut self.problems);
        tolerance
    }

    fn import(&mut self, node: Node<'_>, data: &Path, prices: &mut Prices) {
        let mut map = Map::new(node, &mut self.problems);
        let names = Format::names();
        let format = map.take_as("from", &mut self.problems, &names, Format::from_name);
        let file = self.path(&mut map, "file");
        let url = self.text(&mut map, "url");
        let every = map.take_as("every", &mut self.problems, "a duration (1h)", duration).unwrap_or(EVERY);
        let trusted = map.take_bool("trusted", &mut self.problems).unwrap_or(false);
        let line = map.line();
        map.finish(&mut self.problems);
        let Some(format) = format else { return self.problems.add(line, format!("`from` must say whose prices they are: {names}")) };
        match (file, url) {
            (Some(_), Some(_)) => self.problems.add(line, "give a `file` or a `url`, not both"),
            (Some(path), None) => self.import_file(format, &path, trusted, prices),
            (None, url) => {
                let (line, url) = url.unwrap_or_else(|| (line, format.url().to_owned()));
                self.import_url(line, published(format, url, every, trusted, data), prices);
            }
        }
    }

    /// The variables of the predecessor.
    fn import_from_environment(&mut self, data: &Path, prices: &mut Prices) {
        if let Some(path) = self.variable(&["MODELS_DEV_JSON"]) {
            self.import_file(Format::ModelsDev, &absolute(Path::new(&path)), false, prices);
        } else if let Some(url) = self.variable(&["MODELS_DEV_URL"]) {
            self.import_url(0, published(Format::ModelsDev, url, EVERY, false, data), prices);
        }
    }

    fn import_file(&mut self, format: Format, path: &Path, trusted: bool, prices: &mut Prices) {
        self.files.push(Stamp::of(path));
        let read = price::read_published(path).map_err(|error| format!("cannot be read: {error}"));
        let imported = read.and_then(|text| take_over(format, &text, trusted, prices));
        if let Err(message) = imported {
            self.prices.push(Problem { file: path.display().to_string(), line: 0, message });
        }
    }

    fn import_url(&mut self, line: usize, published: Published, prices: &mut Prices) {
        let uri: Option<http::Uri> = published.url.parse().ok();
        let near = |uri: &http::Uri| matches!(uri.host(), Some("127.0.0.1" | "localhost" | "[::1]"));
        match uri.filter(|uri| uri.scheme_str() == Some("https") || uri.scheme_str() == Some("http") && near(uri)) {
            Some(_) => self.import_published(published, prices),
            None => self.problems.add(line, "prices decide over money: their url must start with https://"),
        }
    }

    /// What was fetched lately. It was looked at when it came; without it the embedded prices hold until it does.
    fn import_published(&mut self, published: Published, prices: &mut Prices) {
        self.files.push(Stamp::of(published.cache.path()));
        let read = published.cache.read().map_err(|error| format!("cannot be read: {error}"));
        let imported = read.and_then(|text| text.map_or(Ok(()), |text| take_over(published.format, &text, true, prices)));
        if let Err(why) = imported {
            log::error!("{}: {why}; it is fetched again", published.cache.path().display());
            published.cache.forget();
        }
        prices.published.push(published);
    }

    fn markup(&mut self, node: Node<'_>) -> Option<Markup> {
        let mut map = Map::new(node, &mut self.problems);
        let [provider, model, key, org] = ["provider", "model", "key", "org"].map(|key| self.text(&mut map, key).map(|(_, text)| text));
        let fit = |factor: &Decimal| !factor.is_sign_negative() && *factor <= Decimal::from(FACTOR_MAX) && factor.scale() <= 6;
        let factor = map.take_as("factor", &mut self.problems, "a factor from 0 to 1000 with at most six decimals (1.2)", |text| {
            text.parse::<Decimal>().ok().filter(fit)
        });
        if factor.is_none() {
            self.problems.add(map.line(), "a markup needs its `factor`");
        }
        map.finish(&mut self.problems);
        Some(Markup { provider, model, key, org, factor: factor?.normalize() })
    }
}

fn published(format: Format, url: String, every: Duration, trusted: bool, data: &Path) -> Published {
    let digest = hex::encode(Sha256::digest(&url).get(..4).unwrap_or_default());
    let cache = Cache::new(data.join("prices").join(format!("{}-{digest}.json", format.name())));
    Published { format, url, every, cache, trusted }
}

fn take_over(format: Format, text: &str, trusted: bool, prices: &mut Prices) -> Result<(), String> {
    let imported = import(format, text)?;
    if !trusted {
        check_change(&prices.catalog, &imported).map_err(|why| format!("{why}; write `trusted: true` if that is so"))?;
    }
    lay_over(&mut prices.catalog, imported);
    let digest = hex::encode(Sha256::digest(text).get(..4).unwrap_or_default());
    prices.catalog.version = format!("{}+{}-{digest}", prices.catalog.version, format.name());
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Source, load};
    use crate::price::{Moment, Query, charge};
    use crate::usage::Dimension;

    const PUBLISHED: &str = r#"{"openai": {"models": {"gpt-5": {"cost": {"input": 2, "output": 20}}}}}"#;

    fn read(yaml: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path().display().to_string();
        let path = folder.path().join("c.yaml");
        std::fs::write(&path, yaml.replace("{here}", &here)).unwrap();
        std::fs::write(folder.path().join("p.json"), PUBLISHED).unwrap();
        std::fs::write(folder.path().join("odd.json"), PUBLISHED.replace("20", "2000")).unwrap();
        let variable = |name: &str| variables.iter().find(|(other, _)| *other == name).map(|(_, value)| value.replace("{here}", &here));
        load(&Source::File(path), &variable).map_err(|problems| problems.iter().map(|problem| problem.to_string() + "\n").collect())
    }

    fn price(config: &Config) -> String {
        let query = Query { provider: "openai", model: "gpt-5", tier: "", region: "", at: Moment { unix_s: 1_795_564_800 } };
        charge(&config.prices, &query, &[(Dimension::Input, 1_000_000)].into_iter().collect(), 0).amount.to_string()
    }

    #[test]
    fn published_prices_lie_over_the_embedded_ones() {
        for (yaml, variables, want) in [
            ("{}", &[][..], "1.25"),
            ("prices: {import: [{from: models.dev, file: \"{here}/p.json\"}]}", &[], "2.00"),
            ("prices: {import: [{from: models.dev, file: \"{here}/odd.json\", trusted: true}]}", &[], "2.00"),
            ("{}", &[("MODELS_DEV_JSON", "{here}/p.json")], "2.00"),
            ("prices: {import: []}", &[("MODELS_DEV_JSON", "{here}/p.json")], "2.00"),
            // Nothing was fetched yet.
            ("data: \"{here}\"\nprices: {import: [{from: litellm}]}", &[], "1.25"),
        ] {
            let config = read(yaml, variables).unwrap();
            assert_eq!(price(&config), want, "{yaml}");
            assert_eq!(config.prices.version.contains("+models.dev-"), want == "2.00");
        }
        let config = read("data: \"{here}\"\nprices: {import: [{from: litellm, every: 5m}]}", &[]).unwrap();
        assert_eq!((config.published[0].every.as_secs(), config.published[0].url.contains("BerriAI")), (300, true));
    }

    #[test]
    fn own_names_are_priced_before_what_they_are_priced_as() {
        let folder = tempfile::tempdir().unwrap();
        let overlay = folder.path().join("own.yaml");
        let rows =
            "provider: vllm\nversion: own\nmodels: {mine: {prices: [{rates: {input: 3}}]}, gpt-5: {prices: [{rates: {input: 4}}]}}\n";
        std::fs::write(&overlay, rows).unwrap();
        let of = |prices: &str, model: &str| {
            let upstream = format!("providers: {{vllm: {{kind: compatible, base_url: \"http://127.0.0.1:1\"{prices}}}}}");
            let yaml = format!("environment_providers: false\n{upstream}\nprices: {{overlay: [\"{}\"]}}", overlay.display());
            let config = read(&yaml, &[]).unwrap();
            let catalog = &config.upstreams[0].catalog;
            let query = Query { provider: catalog, model, tier: "", region: "", at: Moment { unix_s: 1_795_564_800 } };
            let charge = charge(&config.prices, &query, &[(Dimension::Input, 1_000_000)].into_iter().collect(), 0);
            charge.is_priced().then(|| charge.amount.to_string())
        };
        let openai = ", prices: openai";
        for (prices, model, want) in [
            ("", "mine", Some("3.00")),
            ("", "gpt-5-mini", None),
            (openai, "mine", Some("3.00")),
            (openai, "gpt-5", Some("4.00")),
            (openai, "gpt-5-mini", Some("0.25")),
        ] {
            assert_eq!(of(prices, model).as_deref(), want, "{prices} {model}");
        }
    }

    #[test]
    fn mistakes_are_told() {
        for (yaml, want) in [
            ("prices: {import: [{from: models.dev, file: \"{here}/odd.json\"}]}", "would cost $2000 per million of output instead of $10"),
            ("prices: {import: [{from: litellm, file: \"{here}/p.json\"}]}", "no price in it can be read as one of litellm"),
            ("prices: {import: [{from: models.dev, file: \"{here}/none.json\"}]}", "cannot be read"),
            ("prices: {import: [{from: elsewhere}]}", "models.dev, litellm, genai-prices"),
            ("prices: {import: [{from: models.dev, url: \"http://example.org\"}]}", "https"),
            ("prices: {cost_mismatch: {percent: 101}}", "`percent: 101` is not a number from 0 to 100"),
            ("prices: {cost_mismatch: {percent: -1}}", "percent"),
            ("prices: {cost_mismatch: {usd: -1}}", "usd"),
            ("prices: {cost_mismatch: {usd: 0.0000000000001}}", "usd"),
            ("prices: {cost_mismatch: {eur: 1}}", "eur"),
            ("prices: {markup: [{provider: openai}]}", "factor"),
            ("prices: {markup: [{factor: -1}]}", "factor"),
            ("prices: {markup: [{factor: 1001}]}", "factor"),
            ("prices: {markup: [{factor: 1.0000001}]}", "factor"),
        ] {
            let told = read(yaml, &[]).unwrap_err();
            assert!(told.contains(want), "{yaml}: {told}");
        }
    }
}
