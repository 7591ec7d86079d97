//! Listening sockets: bound, or handed over by the process that served before. That one serves until its successor has
//! said that it does.

use super::successor::tell_serving;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use std::fs;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Connections that wait to be accepted, per socket; the kernel's own bound (net.core.somaxconn) may be lower.
const BACKLOG: i32 = 65_535;
/// How long a successor waits to be given the sockets.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// How long the process that hands over waits for its successor to serve.
const CONFIRM_MAX: Duration = Duration::from_secs(30);
/// How often a successor looks whether somebody has come.
const LOOK: Duration = Duration::from_millis(10);
/// Bytes of an address as it is sent, filled up with spaces; each comes with its socket. Empty: that was all.
const ADDRESS_BYTES: usize = 64;
/// What a successor says when it serves.
const SERVES: [u8; 1] = *b"1";

/// Listening sockets by the addresses that the configuration names.
#[derive(Debug)]
pub struct Sockets(Vec<(SocketAddr, Arc<TcpListener>)>);

impl Sockets {
    /// Binds all of them.
    ///
    /// # Errors
    /// If an address is not free.
    pub fn bind(addresses: &[SocketAddr]) -> io::Result<Self> {
        Self::with(addresses, vec![])
    }

    /// Waits at `path` for the process that serves to hand over, and binds what it did not have.
    ///
    /// # Errors
    /// If nobody hands over in time, the folder of `path` is open to others, or an address is not free.
    pub fn inherit(path: &Path, addresses: &[SocketAddr]) -> io::Result<(Self, Ready)> {
        private_folder(path)?;
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(named(path, &error)),
            _ => {}
        }
        let listener = UnixListener::bind(path).map_err(|error| named(path, &error))?;
        let giver = wait_for_giver(&listener).map_err(|error| named(path, &error));
        // Nobody else is to come.
        let _ = fs::remove_file(path);
        let giver = giver?;
        let mut given = vec![];
        while let Some(one) = receive(&giver)? {
            given.push(one);
        }
        Ok((Self::with(addresses, given)?, Ready(Arc::new((Mutex::new(Some(giver)), AtomicUsize::new(0))))))
    }

    fn with(addresses: &[SocketAddr], mut given: Vec<(SocketAddr, TcpListener)>) -> io::Result<Self> {
        let mut sockets = vec![];
        for &address in addresses {
            let found = given.iter().position(|(other, _)| *other == address).map(|at| given.swap_remove(at).1);
            let socket = match found {
                Some(socket) => socket,
                None => bind(address).map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))?,
            };
            socket.set_nonblocking(true)?;
            sockets.push((address, Arc::new(socket)));
        }
        Ok(Self(sockets))
    }

    /// The socket of an address.
    pub fn of(&self, address: SocketAddr) -> Option<Arc<TcpListener>> {
        self.0.iter().find(|(other, _)| *other == address).map(|(_, socket)| socket.clone())
    }

    /// Gives all of them to the successor that waits at `path`; it serves when this returns.
    ///
    /// # Errors
    /// If nobody waits, or it does not come to serve: then nothing has changed.
    pub fn hand_over(&self, path: &Path) -> io::Result<()> {
        let mut successor = connect(path).map_err(|error| {
            io::Error::new(error.kind(), format!("no successor waits at {}: start one with --upgrade first", path.display()))
        })?;
        successor.set_write_timeout(Some(CONFIRM_MAX))?;
        successor.set_read_timeout(Some(CONFIRM_MAX))?;
        for (address, socket) in &self.0 {
            send(&successor, *address, socket)?;
        }
        successor.write_all(&[b' '; ADDRESS_BYTES])?;
        let mut answer = [0];
        successor
            .read_exact(&mut answer)
            .map_err(|error| io::Error::new(error.kind(), format!("the successor does not serve: {error}")))?;
        if answer == SERVES { Ok(()) } else { Err(io::Error::other("the successor says what nobody understands")) }
    }
}

/// Tells the process that handed over, if one did, and the service manager once everything of this one serves.
#[derive(Clone, Debug, Default)]
pub struct Ready(Arc<(Mutex<Option<UnixStream>>, AtomicUsize)>);

impl Ready {
    /// One more must serve.
    pub fn expect(&self) {
        self.0.1.fetch_add(1, Ordering::AcqRel);
    }

    /// One of those that must serves.
    pub fn serves(&self) {
        if self.0.1.fetch_sub(1, Ordering::AcqRel) != 1 {
            return;
        }
        let giver = self.0.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        match giver.map(|mut giver| giver.write_all(&SERVES)) {
            Some(Err(error)) => {
                // It has given up on this one and serves on: two would count the same limits.
                log::error!("the process that handed over no longer listens, and serves on: {error}");
                std::process::exit(1);
            }
            Some(Ok(())) | None => tell_serving(),
        }
    }
}

/// The folder of the socket is nobody else's: whoever may put a socket there could take the listeners.
fn private_folder(path: &Path) -> io::Result<()> {
    const OTHERS_WRITE: u32 = 0o022;
    let Some(folder) = path.parent() else { return Ok(()) };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| named(folder, &error))?;
    let mode = fs::metadata(folder).map_err(|error| named(folder, &error))?.permissions().mode();
    if mode & OTHERS_WRITE == 0 {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("{}: others may write here; upgrade_socket must not be", folder.display())))
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A successor binds its socket a moment before it listens there.
fn connect(path: &Path) -> io::Result<UnixStream> {
    let until = Instant::now() + 20 * LOOK;
    loop {
        match UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && Instant::now() < until => std::thread::sleep(LOOK),
            connected => return connected,
        }
    }
}

fn wait_for_giver(listener: &UnixListener) -> io::Result<UnixStream> {
    listener.set_nonblocking(true)?;
    let until = Instant::now() + WAIT_MAX;
    loop {
        match listener.accept() {
            Ok((giver, _)) => {
                giver.set_nonblocking(false)?;
                giver.set_read_timeout(Some(CONFIRM_MAX))?;
                return Ok(giver);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < until => std::thread::sleep(LOOK),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "nobody handed over; send SIGQUIT to the process that serves"));
            }
            Err(error) => return Err(error),
        }
    }
}

fn send(to: &UnixStream, address: SocketAddr, socket: &TcpListener) -> io::Result<()> {
    let text = format!("{address:<ADDRESS_BYTES$}");
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let sockets = [socket.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&sockets));
    let sent = sendmsg(to, &[IoSlice::new(text.as_bytes())], &mut control, SendFlags::NOSIGNAL)?;
    if sent == ADDRESS_BYTES { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

fn receive(from: &UnixStream) -> io::Result<Option<(SocketAddr, TcpListener)>> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, "what was handed over is no socket with its address");
    let mut text = [0; ADDRESS_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(from, &mut [IoSliceMut::new(&mut text)], &mut control, RecvFlags::CMSG_CLOEXEC | RecvFlags::WAITALL)?;
    let socket = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut sockets) => sockets.next(),
        _ => None,
    });
    let address = str::from_utf8(&text).map_err(|_| invalid())?.trim_end();
    match (received.bytes == ADDRESS_BYTES, address.is_empty(), socket) {
        (true, true, None) => Ok(None),
        (true, false, Some(socket)) => Ok(Some((address.parse().map_err(|_| invalid())?, socket.into()))),
        _ => Err(invalid()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    fn any() -> SocketAddr {
        ([127, 0, 0, 1], 0).into()
    }

    /// One address twice is two sockets here, told apart by the order in which they were bound.
    fn bound() -> (Sockets, SocketAddr) {
        let sockets = Sockets::bind(&[any()]).unwrap();
        let address = sockets.of(any()).unwrap().local_addr().unwrap();
        (Sockets(vec![(address, sockets.of(any()).unwrap())]), address)
    }

    #[test]
    fn whoever_waits_gets_them_and_says_when_it_serves() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/upgrade.sock");
        let (sockets, address) = bound();
        assert!(sockets.hand_over(&path).is_err());
        let successor = std::thread::spawn({
            let path = path.clone();
            move || {
                let (inherited, ready) = Sockets::inherit(&path, &[address, any()]).unwrap();
                ready.expect();
                ready.expect();
                ready.serves();
                ready.serves();
                inherited
            }
        });
        while !path.exists() {
            std::thread::sleep(LOOK);
        }
        sockets.hand_over(&path).unwrap();
        let inherited = successor.join().unwrap();
        // What waits at the old socket is accepted from the new one.
        let _waits = TcpStream::connect(address).unwrap();
        drop(sockets);
        let socket = inherited.of(address).unwrap();
        socket.set_nonblocking(false).unwrap();
        socket.accept().unwrap();
        assert!(inherited.of(any()).is_some() && !path.exists());
    }

    #[test]
    fn a_successor_that_dies_takes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("upgrade.sock");
        let (sockets, address) = bound();
        let successor = std::thread::spawn({
            let path = path.clone();
            move || drop(Sockets::inherit(&path, &[address]).unwrap())
        });
        while !path.exists() {
            std::thread::sleep(LOOK);
        }
        assert!(sockets.hand_over(&path).unwrap_err().to_string().contains("does not serve"));
        successor.join().unwrap();
        let _waits = TcpStream::connect(address).unwrap();
        let socket = sockets.of(address).unwrap();
        socket.set_nonblocking(false).unwrap();
        socket.accept().unwrap();
    }

    #[test]
    fn a_folder_of_others_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let error = Sockets::inherit(&folder.path().join("upgrade.sock"), &[]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn an_address_that_is_taken_is_named() {
        let (_sockets, address) = bound();
        assert!(Sockets::bind(&[address]).unwrap_err().to_string().starts_with(&address.to_string()));
    }
}
