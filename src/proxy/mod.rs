//! The shell around the exchange: Pingora's hooks, one short call each. Sockets and clocks live here; decisions do not.

mod access;
mod answers;
mod background;
mod bill;
mod body;
mod certificates;
mod commit;
mod costs;
mod crew;
mod ctx;
mod downstream;
mod drain;
mod failure;
mod gateway;
mod head;
mod housekeeping;
mod identity;
mod limits;
pub mod mock_app;
mod peer;
pub mod prices;
mod recent;
mod reload;
mod respond;
mod retry;
pub mod server;
mod shared;
mod sinks;
mod socket;
mod sockets;
mod state;
mod wire;

pub use gateway::Gateway;
pub use head::check_origin;
pub use state::State;
pub(crate) use state::now_ms;
