//! `tollgate keys`: makes, lists, revokes and rotates gateway keys.

use super::{ConfigOption, failed};
use clap::{Args, Subcommand};
use jiff::{SignedDuration, Timestamp};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;
use tollgate::config::{Config, Secret, key_file};
use tollgate::keys::signature::{access_key_id, secret_of};
use tollgate::keys::{Record, make, rotate};

#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    config: ConfigOption,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a key and show it, once
    Add {
        /// What the key is for; in entries and sums
        name: String,
        /// Whom it is billed to
        #[arg(long)]
        org: Option<String>,
        /// The project of it, for reports
        #[arg(long)]
        project: Option<String>,
        /// A model it may use, or a pattern (gpt-*); several may be given, none means all
        #[arg(long = "model", value_name = "MODEL")]
        models: Vec<String>,
        /// A provider it may use, by its name in the configuration
        #[arg(long = "provider", value_name = "PROVIDER")]
        providers: Vec<String>,
        /// After how long it ends (90d)
        #[arg(long, value_parser = humantime::parse_duration)]
        expires: Option<Duration>,
        /// Turn prompt caching on or off for it, whatever the provider's configuration says
        #[arg(long)]
        prompt_cache: Option<bool>,
    },
    /// Show the keys, without their secrets
    List {
        #[arg(long)]
        json: bool,
    },
    /// End a key
    Revoke {
        /// Its id, or its name if no other key has the same
        key: String,
    },
    /// Give a key a new secret and show it, once
    Rotate {
        /// Its id, or its name if no other key has the same
        key: String,
        /// For how long the old one is still accepted
        #[arg(long, value_parser = humantime::parse_duration)]
        overlap: Option<Duration>,
    },
}

pub fn run(options: &Options) -> Result<(), ExitCode> {
    let config = options.config.load()?;
    let Some(path) = config.key_file.clone() else {
        let hint = "write `keys: {}` into it, then every request needs one";
        return Err(failed(format!("the configuration asks for no keys; {hint}")));
    };
    let now = Timestamp::now();
    match &options.action {
        Action::List { json } => list(&path, *json, now),
        Action::Revoke { key } => key_file::update(&path, |keys| {
            find(keys, key)?.revoked = Some(now);
            Ok(())
        })
        .map(|()| hint("revoked")),
        Action::Rotate { key, overlap } => rotated(&path, key, *overlap, now).map(|(record, text)| show(&record, &text, &config)),
        Action::Add { .. } => add(&path, &options.action, &config, now).map(|(record, text)| show(&record, &text, &config)),
    }
    .map_err(failed)
}

fn add(path: &Path, action: &Action, config: &Config, now: Timestamp) -> Result<(Record, String), String> {
    let Action::Add { name, org, project, models, providers, expires, prompt_cache } = action else {
        return Err("nothing to add".to_owned());
    };
    if let Some(unknown) = providers.iter().find(|name| config.upstream(name).is_none()) {
        return Err(format!("no provider is called `{unknown}` in the configuration"));
    }
    let mut made = make(name, now).map_err(|error| error.to_string())?;
    let record = &mut made.record;
    record.project.clone_from(project);
    (record.org, record.models, record.providers, record.prompt_cache) = (org.clone(), models.clone(), providers.clone(), *prompt_cache);
    record.expires = expires.map(|age| later(now, age)).transpose()?;
    key_file::update(path, |keys| {
        keys.push(made.record.clone());
        Ok(())
    })?;
    Ok((made.record, made.text))
}

fn rotated(path: &Path, key: &str, overlap: Option<Duration>, now: Timestamp) -> Result<(Record, String), String> {
    let until = overlap.map(|age| later(now, age)).transpose()?;
    key_file::update(path, |keys| {
        let record = find(keys, key)?;
        let text = rotate(record, now, until).map_err(|error| error.to_string())?;
        Ok((record.clone(), text))
    })
}

fn later(now: Timestamp, age: Duration) -> Result<Timestamp, String> {
    let age = SignedDuration::try_from(age).map_err(|error| error.to_string())?;
    now.checked_add(age).map_err(|error| error.to_string())
}

/// The one key that is meant, revoked ones aside.
fn find<'a>(keys: &'a mut [Record], named: &str) -> Result<&'a mut Record, String> {
    let mut fit: Vec<&mut Record> = keys.iter_mut().filter(|key| key.revoked.is_none() && (key.id == named || key.name == named)).collect();
    match (fit.pop(), fit.len()) {
        (Some(key), 0) => Ok(key),
        (Some(_), _) => Err(format!("several keys are called `{named}`; give the id")),
        (None, _) => Err(format!("no key is called `{named}`")),
    }
}

/// The only moment at which the secret is anywhere.
fn show(record: &Record, text: &str, config: &Config) {
    say!("{text}");
    let signing: Option<&Secret> = config.keys.as_ref().and_then(|keys| keys.signing.as_ref());
    if let (Some(signing), Some(secret)) = (signing, record.secrets.last()) {
        let id = access_key_id(&record.id, secret.serial);
        say!("AWS_ACCESS_KEY_ID={id}\nAWS_SECRET_ACCESS_KEY={}", secret_of(signing, &id));
    }
    hint(&format!("key {} ({}); it is not shown again", record.id, record.name));
}

fn hint(done: &str) {
    eprintln!("{done}. A running gateway takes it over within a few seconds, or at once on SIGHUP");
}

fn list(path: &Path, json: bool, now: Timestamp) -> Result<(), String> {
    let keys = key_file::read(path)?;
    if json {
        let shown: Vec<_> = keys.iter().map(|key| serde_json::json!({"id": key.id, "name": key.name, "org": key.org, "project": key.project, "models": key.models, "providers": key.providers, "prompt_cache": key.prompt_cache, "created": key.created, "expires": key.expires, "revoked": key.revoked})).collect();
        say!("{}", serde_json::Value::from(shown));
        return Ok(());
    }
    say!("{:16}  {:9}  {:10}  {:20}  {:12}  may use", "id", "state", "created", "name", "org");
    for key in &keys {
        let state = match (key.revoked, key.expires) {
            (Some(_), _) => "revoked",
            (None, Some(at)) if at <= now => "expired",
            _ => "valid",
        };
        let any = |list: &[String]| if list.is_empty() { "all".to_owned() } else { list.join(", ") };
        say!(
            "{:16}  {state:9}  {:10}  {:20}  {:12}  models: {}; providers: {}",
            key.id,
            key.created.strftime("%Y-%m-%d").to_string(),
            key.name,
            key.org.as_deref().unwrap_or("-"),
            any(&key.models),
            any(&key.providers)
        );
    }
    Ok(())
}
