//! A process that replaces itself: it starts the binary that lies where its own did, and hands over to it. And what the
//! service manager hears of it.

use log::{error, info};
use sd_notify::NotifyState;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// How long a successor may take to read its configuration and recall what it must know.
const START_MAX: Duration = Duration::from_secs(60);
/// How often is looked whether it waits.
const LOOK: Duration = Duration::from_millis(20);

/// How this process was started, to start another like it.
#[derive(Clone, Debug)]
pub struct Launch {
    binary: PathBuf,
    arguments: Vec<OsString>,
    folder: PathBuf,
}

impl Launch {
    /// To be asked before the process leaves its folder, and while its binary is where it was.
    pub fn of_this_process() -> Self {
        let mut arguments = std::env::args_os();
        let called = arguments.next().unwrap_or_default();
        let arguments = arguments.filter(|argument| argument != "--upgrade" && argument != "-u").collect();
        // Where the system does not tell, what it was called by is the best there is.
        let binary = std::env::current_exe().unwrap_or_else(|_| called.into());
        Self { binary, arguments, folder: std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")) }
    }

    /// Starts a successor and returns once it waits at `path` to be given the sockets.
    ///
    /// # Errors
    /// If it ends instead, or takes too long: then it is ended.
    pub fn start(&self, path: &Path) -> io::Result<Child> {
        let before = inode(path);
        let mut child = Command::new(&self.binary).args(&self.arguments).arg("--upgrade").current_dir(&self.folder).spawn()?;
        let until = Instant::now() + START_MAX;
        while inode(path).is_none_or(|now| Some(now) == before) {
            // One that goes to the background ends well in the foreground.
            let ended = child.try_wait()?.filter(|status| !status.success());
            let late = (Instant::now() > until).then_some("it takes too long");
            if let Some(why) = ended.map(|status| status.to_string()).or(late.map(str::to_owned)) {
                end(child);
                return Err(io::Error::other(format!("{} does not come to serve: {why}", self.binary.display())));
            }
            std::thread::sleep(LOOK);
        }
        Ok(child)
    }
}

fn inode(path: &Path) -> Option<u64> {
    fs::symlink_metadata(path).ok().map(|file| file.ino())
}

/// Ends a successor that is not to serve.
pub fn end(mut child: Child) {
    // It may have ended by itself.
    let _ = child.kill();
    let _ = child.wait();
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
