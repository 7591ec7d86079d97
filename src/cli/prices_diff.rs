//! `tollgate prices diff`: published prices beside those configured, for a person to decide between them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use tollgate::price::import::{Format, Imported, check_change, import};
use tollgate::price::{Catalog, Model, Moment, Query, Rates, read_published, show};
use tollgate::proxy::prices::fetch_once;
use tollgate::usage::Dimension;

/// A publisher's prices, and the date they are of.
pub struct Source {
    format: Format,
    date: String,
    imported: Vec<Imported>,
}

impl Source {
    /// Reads `NAME` from its publisher, or `NAME=FILE` from a file that was fetched before.
    ///
    /// # Errors
    /// If the name is unknown, nothing can be read, or it is not in the publisher's format.
    pub fn read(named: &str) -> Result<Self, String> {
        let (name, file) = named.split_once('=').map_or((named, None), |(name, file)| (name, Some(PathBuf::from(file))));
        let format =
            Format::from_name(name).ok_or_else(|| format!("`{name}` publishes no prices that are known here: {}", Format::names()))?;
        let (from, text, time) = match &file {
            Some(path) => {
                let modified = path.metadata().and_then(|data| data.modified()).ok();
                let time = modified.and_then(|time| jiff::Timestamp::try_from(time).ok());
                (path.display().to_string(), read_published(path).map_err(|error| error.to_string()), time)
            }
            None => (format.url().to_owned(), fetch_once(format.url()), Some(jiff::Timestamp::now())),
        };
        let imported = text.and_then(|text| import(format, &text)).map_err(|why| format!("{from}: {why}"))?;
        let date = time.map_or_else(|| "date unknown".to_owned(), |time| time.strftime("%Y-%m-%d").to_string());
        Ok(Self { format, date, imported })
    }

    /// The date of a model's price: the publisher's own, else that of the list.
    fn date_of<'a>(&'a self, model: &'a Model) -> &'a str {
        checked(model).unwrap_or(&self.date)
    }
}

fn checked(model: &Model) -> Option<&str> {
    model.origin.as_ref()?.checked.as_deref()
}

/// The rates of a request that is served now, as usual.
fn standard<'a>(provider: &str, model: &'a Model, at: Moment) -> Option<&'a Rates> {
    let query = Query { provider, model: &model.id, tier: "", region: "", at };
    model.price(&query).map(|(price, _)| &price.rates)
}

/// Lines that compare the catalog with the sources at a moment: a row for each rate that differs, or for all rates.
pub fn lines(catalog: &Catalog, sources: &[Source], at: Moment, all: bool) -> Vec<String> {
    let mut models: BTreeMap<(&str, &str), Vec<Option<&Model>>> = BTreeMap::new();
    for (place, source) in sources.iter().enumerate() {
        for Imported { provider, model, .. } in &source.imported {
            let row = models.entry((provider, &model.id)).or_insert_with(|| vec![None; sources.len()]);
            row.get_mut(place).into_iter().for_each(|cell| *cell = Some(model));
        }
    }
    let mut rows = vec![header(sources)];
    let (mut same, mut differing, mut lacking) = (0, BTreeSet::new(), vec![]);
    for ((provider, id), theirs) in &models {
        let Some(ours) = catalog.model(provider, id) else {
            lacking.push(format!("{provider}/{id}"));
            continue;
        };
        let (before, row) = (rows.len(), Row { provider, id, ours, theirs });
        rows.extend(Dimension::ALL.iter().filter_map(|dimension| row.cells(*dimension, sources, at, all)));
        let differs = rows.len() > before;
        same += usize::from(!differs);
        differs.then(|| differing.insert((provider, id)));
    }
    let mut lines = aligned(&rows);
    lines.push(format!("{same} models have the same rates, {} are shown, {} have no price here", differing.len(), lacking.len()));
    lines.extend(lacking.iter().filter(|_| all).map(|name| format!("  no price here: {name}")));
    for source in sources {
        let suspicious = check_change(catalog, &source.imported).err();
        lines.extend(suspicious.map(|why| format!("suspicious in {}: {why}", source.format.name())));
    }
    lines
}

fn header(sources: &[Source]) -> Vec<String> {
    let named = sources.iter().map(|source| format!("{} ({})", source.format.name(), source.date));
    ["model", "rate", "ours"].map(str::to_owned).into_iter().chain(named).chain(["newest".to_owned()]).collect()
}

/// A model at a provider: ours, and the same of each source.
struct Row<'a> {
    provider: &'a str,
    id: &'a str,
    ours: &'a Model,
    theirs: &'a [Option<&'a Model>],
}

impl Row<'_> {
    /// Cells of one rate: ours, theirs with the ratio to ours, and whose is the newest. `None` if there is nothing to show.
    fn cells(&self, dimension: Dimension, sources: &[Source], at: Moment, all: bool) -> Option<Vec<String>> {
        let own = standard(self.provider, self.ours, at)?.of(dimension)?;
        let rate = |model: &Option<&Model>| standard(self.provider, (*model)?, at)?.of(dimension);
        let rates: Vec<Option<i128>> = self.theirs.iter().map(rate).collect();
        if rates.iter().flatten().next().is_none() || !all && rates.iter().flatten().all(|rate| *rate == own) {
            return None;
        }
        let cell = |rate: &Option<i128>| match rate {
            Some(rate) => format!("{} ({})", show::dollars(dimension, *rate), ratio(*rate, own)),
            None => "-".to_owned(),
        };
        let stated = self.theirs.iter().zip(sources).zip(&rates).filter(|(_, rate)| rate.is_some());
        let dated = stated.filter_map(|((model, source), _)| Some((source.date_of((*model)?), source.format.name())));
        let dated = dated.chain(checked(self.ours).map(|date| (date, "ours"))).filter(|(date, _)| date.starts_with("20"));
        let newest = dated.max_by_key(|(date, _)| *date).map_or_else(|| "-".to_owned(), |(date, name)| format!("{name} {date}"));
        let first = [format!("{}/{}", self.provider, self.id), dimension.name().to_owned(), show::dollars(dimension, own).to_string()];
        Some(first.into_iter().chain(rates.iter().map(cell)).chain([newest]).collect())
    }
}

/// Their rate as a multiple of ours, with two decimals.
fn ratio(theirs: i128, ours: i128) -> String {
    if theirs == ours {
        return "same".to_owned();
    }
    let hundredths = theirs.checked_mul(100).and_then(|theirs| theirs.checked_div(ours));
    hundredths.map_or_else(|| "ours is free".to_owned(), |ratio| format!("×{}.{:02}", ratio / 100, ratio % 100))
}

fn aligned(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |at: usize| rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tollgate::price::embedded;

    #[test]
    fn sources_stand_side_by_side() {
        let folder = tempfile::tempdir().unwrap();
        let source = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            Source { date: "2026-11-01".to_owned(), ..Source::read(&format!("{name}={}", path.display())).unwrap() }
        };
        let models_dev = source(
            "models.dev",
            r#"{"openai": {"models": {"gpt-5": {"last_updated": "2026-11-30", "cost": {"input": 1.25, "output": 20}}, "gpt-none": {"cost": {"input": 1}}}}}"#,
        );
        let litellm = source(
            "litellm",
            r#"{"gpt-5": {"litellm_provider": "openai", "input_cost_per_token": 1.25e-06, "output_cost_per_token": 1e-05},
                "gpt-5-mini": {"litellm_provider": "openai", "input_cost_per_token": 2.5e-07}}"#,
        );
        let compared = |all| lines(&embedded().unwrap(), &[models_dev, litellm], Moment { unix_s: 1_796_126_400 }, all);
        let shown = compared(false);
        let row = |line: &str| line.split("  ").filter(|cell| !cell.is_empty()).map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
        assert_eq!(row(&shown[0]), ["model", "rate", "ours", "models.dev (2026-11-01)", "litellm (2026-11-01)", "newest"]);
        assert_eq!(row(&shown[1]), ["openai/gpt-5", "output", "10", "20 (×2.00)", "10 (same)", "models.dev 2026-11-30"]);
        assert_eq!(shown[2], "1 models have the same rates, 1 are shown, 1 have no price here");
        assert!(Source::read("elsewhere").is_err_and(|why| why.contains("models.dev, litellm, genai-prices")));
    }
}
