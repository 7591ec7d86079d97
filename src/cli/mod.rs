//! The command line.

/// A line on standard output. What the standard library's own does where nobody reads on (`tollgate check | head`) is
/// to panic.
macro_rules! say {
    ($($said:tt)*) => { $crate::cli::say(format_args!($($said)*)) };
}

mod check;
mod keys;
mod prices;
mod prices_diff;
mod replay;
mod usage;

use clap::{Args, CommandFactory, Parser, Subcommand};
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tollgate::config::{self, Config, Source};
use tollgate::printable::printable;
use tollgate::proxy::server::{self, Start};

/// An LLM gateway that charges every request exactly.
#[derive(Debug, Parser)]
#[command(version, about, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunOptions,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve (what happens without a command, too)
    Run(RunOptions),
    /// Validate a configuration and its prices, and print what would run
    Check {
        #[command(flatten)]
        config: ConfigOption,
    },
    /// Serve the mock provider alone
    Mock {
        /// Where to listen
        #[arg(long, default_value = "127.0.0.1:8081")]
        listen: SocketAddr,
        /// Threads to serve with
        #[arg(long, default_value_t = 1)]
        threads: usize,
    },
    /// Meter and price a recorded response
    Replay(replay::Options),
    /// Make, list, revoke and rotate gateway keys
    Keys(keys::Options),
    /// Show prices, and bring in those that others publish
    Prices(prices::Options),
    /// Sum up the ledger
    Usage(usage::Options),
    /// Print what completes commands in a shell
    Completions { shell: clap_complete::Shell },
    /// Print the manual page
    Man {
        /// Write the pages of all commands into a folder instead
        #[arg(long, value_name = "DIR")]
        into: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
struct ConfigOption {
    /// Configuration file; without one the embedded defaults hold
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct RunOptions {
    #[command(flatten)]
    config: ConfigOption,
    /// Take over the sockets of the running process (send it SIGQUIT next; SIGUSR2 does both)
    #[arg(short, long)]
    upgrade: bool,
    /// Run in the background
    #[arg(short, long)]
    daemon: bool,
    /// Check that the configuration is valid, then leave
    #[arg(short, long)]
    test: bool,
}

impl ConfigOption {
    fn load(&self) -> Result<Config, ExitCode> {
        let source = self.config.clone().map_or(Source::Embedded, Source::File);
        config::load(&source, &|name| std::env::var(name).ok()).map_err(|problems| {
            for problem in &problems {
                eprintln!("error: {problem}");
            }
            eprintln!("{} mistake{}; nothing was started", problems.len(), if problems.len() == 1 { "" } else { "s" });
            ExitCode::from(2)
        })
    }
}

/// Does what the command line says.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    start_log();
    let done = match cli.command {
        None => run(&cli.run),
        Some(Command::Run(options)) => run(&options),
        Some(Command::Check { config }) => config.load().map(|config| check::print(&config)),
        Some(Command::Mock { listen, threads }) => {
            eprintln!("mock provider on http://{listen}");
            server::run_mock(listen, threads).map_err(|error| failed(error.to_string()))
        }
        Some(Command::Replay(options)) => replay::run(&options).map_err(failed),
        Some(Command::Keys(options)) => keys::run(&options),
        Some(Command::Prices(options)) => prices::run(&options),
        Some(Command::Usage(options)) => usage::run(&options).map_err(failed),
        Some(Command::Completions { shell }) => {
            let mut out = vec![];
            clap_complete::generate(shell, &mut Cli::command(), "tollgate", &mut out);
            say!("{}", String::from_utf8_lossy(&out).trim_end());
            Ok(())
        }
        Some(Command::Man { into }) => manual(into.as_deref()).map_err(|error| failed(error.to_string())),
    };
    done.map_or_else(|code| code, |()| ExitCode::SUCCESS)
}

/// Starts the log on stderr. Its level is that of the configuration, once that is read, unless `RUST_LOG` says otherwise.
fn start_log() {
    let filter = env_logger::Env::default().default_filter_or("warn,tollgate=info");
    let write = |out: &mut env_logger::fmt::Formatter, record: &log::Record<'_>| {
        let (time, message) = (out.timestamp_millis(), record.args().to_string());
        let lines = message.lines().map(printable).collect::<Vec<_>>().join("\n");
        writeln!(out, "[{time} {:<5} {}] {lines}", record.level(), record.target())
    };
    env_logger::Builder::from_env(filter).format(write).init();
    if std::env::var_os("RUST_LOG").is_none() {
        log::set_max_level(log::LevelFilter::Warn);
    }
}

/// The first page, or all of them into a folder.
fn manual(into: Option<&Path>) -> std::io::Result<()> {
    if let Some(folder) = into {
        return clap_mangen::generate_to(Cli::command(), folder);
    }
    let mut out = vec![];
    clap_mangen::Man::new(Cli::command()).render(&mut out)?;
    say!("{}", String::from_utf8_lossy(&out).trim_end());
    Ok(())
}

fn say(line: std::fmt::Arguments<'_>) {
    if let Err(error) = writeln!(std::io::stdout(), "{line}") {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            // As shells count those whom the signal ends.
            std::process::exit(128 + rustix::process::Signal::PIPE.as_raw());
        }
        eprintln!("error: standard output: {error}");
        std::process::exit(1);
    }
}

fn failed(why: String) -> ExitCode {
    eprintln!("error: {why}");
    ExitCode::FAILURE
}

fn run(options: &RunOptions) -> Result<(), ExitCode> {
    let config = options.config.load()?;
    if options.test {
        eprintln!("the configuration is valid");
        return Ok(());
    }
    config.process.apply_log_level();
    let greeting = greeting(&config);
    let start = Start { upgrade: options.upgrade, daemon: options.daemon };
    let daemon = server::build(config, start).map_err(|error| failed(error.to_string()))?;
    eprint!("{greeting}");
    daemon.run();
    Ok(())
}

/// What a person who starts the gateway by hand wants to see.
fn greeting(config: &Config) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    let providers: Vec<_> = config.upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
    for listener in &config.listen {
        let scheme = if listener.tls.is_some() { "https" } else { "http" };
        let _ = writeln!(text, "tollgate {} serves {scheme}://{}", env!("CARGO_PKG_VERSION"), listener.address);
    }
    let _ = writeln!(text, "  providers: {}", providers.join(", "));
    if let Some(admin) = config.admin {
        let _ = writeln!(text, "  dashboard: http://{admin}/ (metrics at /metrics)");
    }
    let _ = writeln!(text, "  ledger:    {} (`tollgate usage` sums it up)", config.data.join("ledger").display());
    text
}
