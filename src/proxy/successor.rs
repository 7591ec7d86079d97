//! A process that replaces itself: it starts the binary that lies where its own did, and hands over to it. And what the
//! service manager hears of it.

use crate::config::Source;
use log::{error, info};
use sd_notify::NotifyState;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long a successor may take to read its configuration and recall what it must know.
const START_MAX: Duration = Duration::from_secs(60);
/// How often is looked whether it waits.
const LOOK: Duration = Duration::from_millis(20);

/// How another process like this one is started, to take over from it.
#[derive(Clone, Debug)]
pub struct Launch {
    binary: PathBuf,
    arguments: Vec<OsString>,
    folder: PathBuf,
}

impl Launch {
    /// To be asked before the process leaves its folder, and while its binary is where it was.
    pub fn of_this_process(source: &Source, daemon: bool) -> Self {
        let mut arguments: Vec<OsString> = vec!["--upgrade".into()];
        if let Source::File(path) = source {
            arguments.extend(["--config".into(), path.into()]);
        }
        arguments.extend(daemon.then(|| "--daemon".into()));
        // Where the system does not tell, what it was called by is the best there is.
        let called = || std::env::args_os().next().unwrap_or_default().into();
        let binary = std::env::current_exe().unwrap_or_else(|_| called());
        Self { binary, arguments, folder: std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")) }
    }

    /// Starts a successor and returns once it waits at `path` to be given the sockets.
    ///
    /// # Errors
    /// If it ends instead, takes too long, or nobody wants it any more: then it is ended.
    pub fn start(&self, path: &Path, stop: &AtomicBool) -> io::Result<Child> {
        // What one left that waited in vain is not taken for this one's.
        let _ = fs::remove_file(path);
        let mut child = Command::new(&self.binary).args(&self.arguments).current_dir(&self.folder).spawn()?;
        let until = Instant::now() + START_MAX;
        while !path.exists() {
            if stop.load(Ordering::Acquire) {
                end(child, path);
                return Err(io::Error::other("this process was told to end meanwhile"));
            }
            // One that goes to the background ends well in the foreground.
            let ended = child.try_wait()?.filter(|status| !status.success());
            let late = (Instant::now() > until).then_some("it takes too long");
            if let Some(why) = ended.map(|status| status.to_string()).or(late.map(str::to_owned)) {
                end(child, path);
                return Err(io::Error::other(format!("{} does not come to serve: {why}", self.binary.display())));
            }
            std::thread::sleep(LOOK);
        }
        Ok(child)
    }
}

/// Ends a successor that is not to serve, and what it left at `path`.
pub fn end(mut child: Child, path: &Path) {
    // It may have ended by itself.
    let _ = child.kill();
    let _ = child.wait();
    let _ = fs::remove_file(path);
}

/// Tells the service manager that this process serves, and is the one to watch.
pub fn tell_serving() {
    tell(&[NotifyState::MainPid(std::process::id()), NotifyState::Ready]);
    info!("serving");
}

/// Tells the service manager that the service ends.
pub fn tell_stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        error!("the service manager does not hear of this process: {error}");
    }
}
