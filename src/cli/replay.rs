//! `tollgate replay`: meters and prices a recorded response without a network.

use clap::Args;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use std::path::PathBuf;
use tollgate::config::Upstream;
use tollgate::dialect::Dialect;
use tollgate::exchange::response_meter;
use tollgate::exchange::settle::{Markups, Terms, settle};
use tollgate::price::{self, Moment, Tolerance};
use tollgate::printable::printable;
use tollgate::provider::{self, CHAT_COMPATIBLE, Provider};
use tollgate::stream::event_stream;
use tollgate::usage::Reported;

#[derive(Debug, Args)]
pub struct Options {
    /// The response body: JSON, server-sent events, or an AWS event stream
    file: PathBuf,
    /// In what format it is: chat, responses, messages, generate, converse, … (a wrong one lists them all); told from the body if
    /// left out
    #[arg(long, value_parser = dialect)]
    dialect: Option<Dialect>,
    /// Whose rates and conventions apply
    #[arg(long, default_value = "openai", value_parser = known)]
    provider: &'static Provider,
    /// The model that was asked for, in case the body names none
    #[arg(long, default_value = "")]
    model: String,
    /// A header of the response, `name: value`; may be repeated
    #[arg(long, value_parser = header)]
    header: Vec<(HeaderName, HeaderValue)>,
    /// When the response is priced, as 2026-11-30T02:00:00Z or Unix seconds; now if left out
    #[arg(long, value_parser = time)]
    at: Option<Moment>,
    /// A price file to lay over the embedded catalog
    #[arg(long)]
    prices: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn dialect(text: &str) -> Result<Dialect, String> {
    Dialect::from_name(text).ok_or_else(|| format!("expected one of {}", Dialect::names()))
}

fn known(text: &str) -> Result<&'static Provider, String> {
    provider::find(text)
        .ok_or_else(|| format!("known: {}", provider::REGISTRY.iter().map(|provider| provider.id).collect::<Vec<_>>().join(", ")))
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("expected `name: value`")?;
    let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|error| error.to_string())?;
    Ok((name, HeaderValue::from_str(value.trim()).map_err(|error| error.to_string())?))
}

fn time(text: &str) -> Result<Moment, String> {
    if let Ok(unix_s) = text.parse() {
        return Ok(Moment { unix_s });
    }
    let time: jiff::Timestamp =
        text.parse().map_err(|error| format!("expected a time as 2026-11-30T02:00:00Z, or Unix seconds: {error}"))?;
    Ok(Moment { unix_s: time.as_second() })
}

pub fn run(options: &Options) -> Result<(), String> {
    let body = std::fs::read(&options.file).map_err(|error| format!("{}: {error}", options.file.display()))?;
    let dialect = options.dialect.or_else(|| detect(&body)).ok_or("the dialect cannot be told from the body; give --dialect")?;
    // The conventions of messages are Anthropic's, unless somebody else is named.
    let provider = match provider::find("anthropic") {
        Some(anthropic) if dialect == Dialect::Messages && options.provider.id == "openai" => anthropic,
        _ => options.provider,
    };
    let mut catalog = price::embedded().map_err(|problems| lines(&problems))?;
    if let Some(path) = &options.prices {
        price::overlay(&mut catalog, path).map_err(|problems| lines(&problems))?;
    }
    let mut headers: HeaderMap = options.header.iter().cloned().collect();
    if !headers.contains_key(CONTENT_TYPE) {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type(&body)));
    }
    let mut meter = response_meter(dialect, &headers, &Reported::default());
    meter.push(&body, |_| {});
    meter.finish(true);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let now = Moment { unix_s: i64::try_from(now.as_secs()).unwrap_or(i64::MAX) };
    let terms = Terms {
        upstream: &Upstream::of(if provider.id.is_empty() { &CHAT_COMPATIBLE } else { provider }, provider.id),
        catalog: &catalog,
        convention: provider.convention(dialect),
        model: &options.model,
        opening_only: false,
        estimate: None,
        asked_first: false,
        at: options.at.unwrap_or(now),
        markups: Markups::default(),
        tolerance: Tolerance::default(),
    };
    let (used, mut faults) = settle(meter.found(), &terms);
    meter.found().faults.iter().for_each(|fault| faults.add(fault));
    let faults: Vec<_> = faults.iter().map(|fault| fault.name()).collect();
    if options.json {
        let report = serde_json::json!({"dialect": dialect.name(), "provider": provider.id, "usage": used, "error": meter.found().error, "faults": faults});
        say!("{report}");
        return Ok(());
    }
    say!("dialect   {}", dialect.name());
    say!("response  {}", if used.response_id.is_empty() { "-".into() } else { printable(&used.response_id) });
    for line in &used.lines {
        say!("model     {} {} {}", printable(&line.model), printable(&line.service_tier), printable(&line.region));
        for (dimension, count) in line.usage.iter() {
            say!("  {:<16} {count:>12}", dimension.name());
        }
        let missing = if line.unpriced.is_empty() { String::new() } else { format!("  (no price: {})", line.unpriced.join(", ")) };
        let free = line.free.as_ref().map(|why| format!("  (not charged: {why})")).unwrap_or_default();
        say!("  charge           ${}{missing}{free}", line.charge);
    }
    say!("usage     {}", used.source.name());
    say!("total     ${} by {}", used.total, used.catalog);
    if let Some(cost) = &used.provider_cost {
        say!("provider  ${} by its own account", printable(cost));
    }
    if let Some(error) = &meter.found().error {
        say!("error     {}", printable(error));
    }
    if !faults.is_empty() {
        say!("faults    {}", faults.join(", "));
    }
    if !used.unknown.is_empty() {
        say!("unknown   {}", used.unknown.join(", "));
    }
    Ok(())
}

fn lines(problems: &[tollgate::yaml::Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// The content type, guessed from the body.
fn content_type(body: &[u8]) -> &'static str {
    if event_stream::is_message(body) {
        "application/vnd.amazon.eventstream"
    } else if matches!(body.trim_ascii_start().first(), Some(b'{' | b'[')) {
        "application/json"
    } else {
        "text/event-stream"
    }
}

/// By what the body, or its first event, calls itself.
fn detect(body: &[u8]) -> Option<Dialect> {
    let text = std::str::from_utf8(body).ok()?;
    let first = text.lines().find_map(|line| line.strip_prefix("data:")).map_or(text, str::trim);
    let value: Value = serde_json::from_str(first).ok()?;
    let name = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
    match (name("object"), name("type")) {
        (object, _) if object.starts_with("chat.completion") => Some(Dialect::Chat),
        ("text_completion", _) => Some(Dialect::Completions),
        ("response", _) => Some(Dialect::Responses),
        ("list", _) => Some(Dialect::Embeddings),
        (_, kind) if kind.starts_with("response.") => Some(Dialect::Responses),
        (_, "message" | "message_start") => Some(Dialect::Messages),
        _ if value.get("choices").is_some() => Some(Dialect::Chat),
        _ if value.get("usageMetadata").is_some() || value.get("candidates").is_some() => Some(Dialect::Generate),
        _ => None,
    }
}
