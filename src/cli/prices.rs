//! `tollgate prices`: shows what something costs, and brings in prices that others publish.

use super::ConfigOption;
use super::prices_diff::{self, Source};
use clap::{Args, Subcommand, ValueEnum};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use tollgate::price::import::{Format, Imported, import, write};
use tollgate::price::{Catalog, Model, Moment, read_published, show};
use tollgate::proxy::prices::fetch_once;

#[derive(Debug, Args)]
pub struct Options {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    config: ConfigOption,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the prices of a model, as configured
    Show {
        /// Its name; all whose names contain it are shown if none is called so
        model: String,
        /// At this provider only
        #[arg(long)]
        provider: Option<String>,
    },
    /// Show published prices beside those configured, where they differ
    Diff {
        /// Whose: `models.dev`, `litellm`, `genai-prices`, or `NAME=FILE` for a list fetched before; left out, all are fetched
        from: Vec<String>,
        /// Show equal rates, too, and name the models that have no price here
        #[arg(long)]
        all: bool,
    },
    /// Write published prices as price files, for `prices.overlay`
    Import {
        #[command(flatten)]
        published: Published,
        /// The folder to write to, a file a provider
        #[arg(short, long)]
        out: PathBuf,
    },
}

#[derive(Debug, Args)]
struct Published {
    /// Who publishes them
    #[arg(value_enum)]
    from: From,
    /// A file that was fetched before; left out, it is fetched now
    file: Option<PathBuf>,
    /// Where to fetch it instead of from its publisher
    #[arg(long, conflicts_with = "file")]
    url: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum From {
    #[value(name = "models.dev")]
    ModelsDev,
    #[value(name = "litellm")]
    LiteLlm,
    #[value(name = "genai-prices")]
    GenaiPrices,
}

impl Published {
    fn read(&self) -> Result<(Format, Vec<Imported>), String> {
        let format = match self.from {
            From::ModelsDev => Format::ModelsDev,
            From::LiteLlm => Format::LiteLlm,
            From::GenaiPrices => Format::GenaiPrices,
        };
        let url = self.url.as_deref().unwrap_or_else(|| format.url());
        let (name, text) = match &self.file {
            Some(path) => (path.display().to_string(), read_published(path).map_err(|error| error.to_string())),
            None => (url.to_owned(), fetch_once(url)),
        };
        let imported = text.and_then(|text| import(format, &text));
        imported.map(|imported| (format, imported)).map_err(|why| format!("{name}: {why}"))
    }
}

pub fn run(options: &Options) -> Result<(), ExitCode> {
    let config = options.config.load()?;
    let done = match &options.command {
        Command::Show { model, provider } => show(&config.prices, model, provider.as_deref()),
        Command::Diff { from, all } => diff(&config.prices, from, *all),
        Command::Import { published, out } => published.read().and_then(|(format, imported)| write_files(format, &imported, out)),
    };
    done.map_err(super::failed)
}

fn show(catalog: &Catalog, name: &str, provider: Option<&str>) -> Result<(), String> {
    let providers = catalog.providers().filter(|known| provider.is_none_or(|wanted| wanted == *known));
    let providers: Vec<_> = providers.collect();
    let mut found: Vec<(&str, &Model)> =
        providers.iter().filter_map(|provider| Some((*provider, catalog.model(provider, name)?))).collect();
    if found.is_empty() {
        let named = |model: &&Model| model.id.contains(name);
        found = providers.iter().flat_map(|provider| catalog.models(provider).filter(named).map(|model| (*provider, model))).collect();
    }
    if found.is_empty() {
        return Err(format!("nothing called `{name}` has a price"));
    }
    for (provider, model) in found {
        say!("{provider}/{}", model.id);
        show::model(model).iter().for_each(|line| say!("{line}"));
    }
    Ok(())
}

fn diff(catalog: &Catalog, from: &[String], all: bool) -> Result<(), String> {
    let every = [Format::GenaiPrices, Format::LiteLlm, Format::ModelsDev].map(|format| format.name().to_owned());
    let named = if from.is_empty() { &every[..] } else { from };
    let sources = named.iter().map(|name| Source::read(name)).collect::<Result<Vec<_>, _>>()?;
    let now = Moment { unix_s: jiff::Timestamp::now().as_second() };
    prices_diff::lines(catalog, &sources, now, all).iter().for_each(|line| say!("{line}"));
    Ok(())
}

fn write_files(format: Format, imported: &[Imported], out: &std::path::Path) -> Result<(), String> {
    let told = |error: std::io::Error| format!("{}: {error}", out.display());
    std::fs::create_dir_all(out).map_err(told)?;
    let mut providers: BTreeMap<&str, Vec<&Imported>> = BTreeMap::new();
    imported.iter().for_each(|model| providers.entry(&model.provider).or_default().push(model));
    let mut written = vec![];
    let today = jiff::Timestamp::now().strftime("%Y-%m-%d");
    for (provider, models) in providers {
        let path = out.join(format!("{provider}.yaml"));
        std::fs::write(&path, write::write(provider, &format!("{}-{today}", format.name()), &models)).map_err(told)?;
        written.push(format!("{}: {} models", path.display(), models.len()));
    }
    // Nobody who stops reading stops the writing.
    written.iter().for_each(|line| say!("{line}"));
    Ok(())
}
