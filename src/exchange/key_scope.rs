//! The upstreams, models and paths that a gateway key may use.

use crate::config::{Config, Upstream};
use crate::error::Error;
use crate::keys::Key;
use crate::route::{self, Head, RequestFields, Route, Target};
use http::Method;

/// Checks a route against the key's providers and models. A key that is limited to models may pass through only reads that
/// generate nothing: which model a passed-through path uses is unknown.
pub(super) fn permit(key: &Key, route: &Route, fields: &RequestFields, config: &Config, head: &Head<'_>) -> Result<(), Error> {
    let upstream = config.upstreams.get(route.upstream).ok_or(Error::Internal)?;
    match route.target {
        Target::Endpoint(_) => {
            key.allows(&upstream.name, &route.model_requested, &route.model)?;
            check_fields(key, fields, route.upstream, config)
        }
        Target::Stored => key.allows_provider(&upstream.name),
        Target::Pass if key.models.is_empty() || reads_models(route, upstream, head) => key.allows_provider(&upstream.name),
        Target::Pass => Err(Error::NotAllowed { path: head.path.to_owned() }),
    }
}

/// Checks the models that a request names beside `model`, and the fields by which the provider selects one.
pub(super) fn check_fields(key: &Key, fields: &RequestFields, at: usize, config: &Config) -> Result<(), Error> {
    if key.models.is_empty() {
        return Ok(());
    }
    if let Some(name) = fields.hidden_model {
        return Err(Error::ForbiddenField { name });
    }
    for model in &fields.other_models {
        let renamed = route::model_at(model, at, config);
        // Google's names may begin with their collection.
        let plain = renamed.strip_prefix("models/").unwrap_or(&renamed);
        if !key.allows_model(model, plain) {
            return Err(Error::ForbiddenModel { model: model.clone() });
        }
    }
    Ok(())
}

/// Every key may read lists of models. Files and jobs may hold output of models that the key must not use.
fn reads_models(route: &Route, upstream: &Upstream, head: &Head<'_>) -> bool {
    let below = route.path.strip_prefix(upstream.base_path.as_str()).unwrap_or_default();
    head.method == Method::GET && (below == "/models" || below.starts_with("/models/"))
}
