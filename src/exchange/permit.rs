//! Which ways are open to a gateway key.

use crate::config::Config;
use crate::error::Error;
use crate::keys::Key;
use crate::route::{Head, Route, Target};
use http::Method;

/// May this key go this way? What a path of the allow-list does with models nobody knows; reading does nothing.
pub(super) fn permit(key: &Key, route: &Route, config: &Config, head: &Head<'_>) -> Result<(), Error> {
    let upstream = config.upstreams.get(route.upstream).ok_or(Error::Internal)?;
    match route.target {
        Target::Endpoint(_) => key.allows(&upstream.name, &route.model_requested, &route.model),
        Target::Pass if key.models.is_empty() || head.method == Method::GET => key.allows_provider(&upstream.name),
        Target::Pass => Err(Error::NotAllowed { path: head.path.to_owned() }),
    }
}
