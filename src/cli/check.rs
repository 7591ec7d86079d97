//! `tollgate check`: what would run.

use tollgate::config::{Config, Credentials, Identity, LogTo, Target};
use tollgate::price::{Catalog, overlay};

/// Prints a valid configuration as it was understood.
pub fn print(config: &Config) {
    for listener in &config.listen {
        let kind = if listener.tls.is_some() { "TLS: HTTP/1.1 and HTTP/2" } else { "HTTP/1.1 and h2c" };
        say!("listen      {} ({kind})", listener.address);
    }
    let or_off = |address: Option<std::net::SocketAddr>| address.map_or_else(|| "off".to_owned(), |address| address.to_string());
    say!("admin       {}", or_off(config.admin));
    say!("mock        {}", or_off(config.mock));
    let callers = match (&config.keys, config.anonymous) {
        (Some(keys), _) => format!("{} gateway keys{}", keys.len(), if keys.signing.is_some() { ", AWS signatures too" } else { "" }),
        (None, true) => "whoever comes".to_owned(),
        (None, false) => "this machine".to_owned(),
    };
    say!("callers     {callers}");
    say!("workers     {}", config.workers);
    say!("data        {}", config.data.display());
    say!("body        at most {} bytes, {} together", config.bounds.body_bytes_max, config.bounds.body_budget_bytes);
    for upstream in &config.upstreams {
        let key = match (&upstream.key, upstream.credentials) {
            (_, Credentials::Caller) => "callers' keys",
            (Some(_), _) => "own key",
            (None, _) if upstream.aws.is_some() => "signed with own AWS keys",
            (None, _) => upstream.identity.as_ref().map_or("no key", Identity::name),
        };
        let scheme = if upstream.tls { "https" } else { "http" };
        let rates = config.prices.sold(&upstream.catalog).count();
        say!(
            "provider    {} → {scheme}://{}{} ({key}, {rates} models priced as {})",
            upstream.name,
            upstream.authority(),
            upstream.base_path,
            upstream.catalog
        );
    }
    let mut aliases: Vec<_> = config.aliases.iter().collect();
    aliases.sort_by_key(|(name, _)| *name);
    for (name, alias) in aliases {
        let shown = |target: &Target| {
            let upstream = config.upstreams.get(target.upstream).map_or("", |upstream| &upstream.name);
            format!("{upstream}/{}", target.model)
        };
        let step = |step: &Vec<Target>| match step.as_slice() {
            [one] => shown(one),
            several => several.iter().map(|target| format!("{}×{}", target.weight, shown(target))).collect::<Vec<_>>().join(" + "),
        };
        say!("alias       {name} → {}", alias.steps.iter().map(step).collect::<Vec<_>>().join(", then "));
    }
    if let Some(fallback) = config.fallback.and_then(|at| config.upstreams.get(at)) {
        say!("fallback    {}", fallback.name);
    }
    config.limits.iter().for_each(|rule| say!("limit       {rule}"));
    say!("prices      {}", config.prices.version);
    unreached_rows(config).iter().for_each(|warning| say!("warning     {warning}"));
    say!("sinks       {}", config.sinks.names().collect::<Vec<_>>().join(", "));
    match &config.access_log.to {
        LogTo::Off => say!("access log  off"),
        LogTo::Stdout => say!("access log  stdout"),
        LogTo::File(path) => say!("access log  {}", path.display()),
    }
}

/// Rows of the operator's price files that price no request.
fn unreached_rows(config: &Config) -> Vec<String> {
    let mut warnings = vec![];
    for path in &config.overlays {
        let (mut rows, file) = (Catalog::default(), path.display().to_string());
        // The file was read with the configuration, which is valid.
        let _ = overlay(&mut rows, &file);
        for provider in rows.providers() {
            if !config.upstreams.iter().any(|upstream| config.prices.sells(&upstream.catalog, provider)) {
                let count = rows.models(provider).count();
                warnings.push(format!(
                    "{file}: no provider is priced as `{provider}` ({count} models): name one so, or write `prices: {provider}` in it"
                ));
                continue;
            }
            let hidden = rows.models(provider).filter(|model| !config.prices.has_name(provider, &model.id));
            warnings.extend(hidden.map(|model| format!("{file}: `{}` of `{provider}` has no name that is not another row's", model.id)));
        }
    }
    warnings
}
