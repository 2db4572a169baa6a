//! What is said between us and a process: one question under way at a time, and what the process says by itself goes to the log.

use nix::sys::socket::{ControlMessage, MsgFlags, Shutdown, recv, sendmsg, shutdown};
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;
use usernet::protocol::{Answer, LONGEST_MESSAGE, Request, Said};

/// Longest wait for an answer.
const ANSWER: Duration = Duration::from_secs(10);

/// The control socket of a process. The process ends when this goes.
#[derive(Debug)]
pub struct Conversation {
    socket: Arc<OwnedFd>,
    answers: Mutex<Receiver<Answer>>,
}

impl Conversation {
    /// Begins it; a thread listens.
    ///
    /// # Errors
    /// No thread.
    pub fn new(netdev: &str, socket: OwnedFd) -> io::Result<Self> {
        let socket = Arc::new(socket);
        let (sender, answers) = channel();
        let (netdev, of_thread) = (netdev.to_owned(), Arc::clone(&socket));
        thread::Builder::new()
            .name("netdevd-user".into())
            .spawn(move || listen(&netdev, &of_thread, &sender))?;
        Ok(Self { socket, answers: Mutex::new(answers) })
    }

    /// Asks, with the files that the request names, and waits for the answer: not on the control thread.
    ///
    /// # Errors
    /// There is none; the process is then good for nothing, and will end.
    pub fn ask(&self, request: &Request, files: &[RawFd]) -> Result<Answer, String> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let text = serde_json::to_vec(request).map_err(|error| error.to_string())?;
        let rights = [ControlMessage::ScmRights(files)];
        let control: &[ControlMessage<'_>] = if files.is_empty() { &[] } else { &rights };
        let sent = sendmsg::<()>(
            self.socket.as_raw_fd(),
            &[IoSlice::new(&text)],
            control,
            MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT,
            None,
        );
        sent.map_err(|errno| format!("the process is not to be spoken to: {}", errno.desc()))?;
        answers.recv_timeout(ANSWER).map_err(|_| {
            // An answer that comes late would be taken for that to the next question.
            self.end();
            "the process does not answer".to_owned()
        })
    }

    fn end(&self) {
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Both);
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        self.end();
    }
}

/// Passes answers on until the socket ends.
fn listen(netdev: &str, socket: &OwnedFd, answers: &Sender<Answer>) {
    let mut bytes = vec![0; LONGEST_MESSAGE];
    loop {
        let length = match recv(socket.as_raw_fd(), &mut bytes, MsgFlags::empty()) {
            Err(nix::errno::Errno::EINTR) => continue,
            Ok(0) | Err(_) => return,
            Ok(length) => length,
        };
        match serde_json::from_slice(bytes.get(..length).unwrap_or_default()) {
            Ok(Said::Answer(answer)) => {
                if answers.send(answer).is_err() {
                    return;
                }
            }
            Ok(Said::Warning(text)) => tracing::warn!("netdev '{netdev}': {text}"),
            Err(error) => {
                tracing::warn!("netdev '{netdev}': the process says what makes no sense: {error}");
                let _ = shutdown(socket.as_raw_fd(), Shutdown::Both);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, send, socketpair};

    fn two() -> (Conversation, OwnedFd) {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
        (Conversation::new("u", ours).unwrap(), theirs)
    }

    fn say(process: &OwnedFd, said: &Said) {
        let text = serde_json::to_vec(said).unwrap();
        send(process.as_raw_fd(), &text, MsgFlags::empty()).unwrap();
    }

    #[test]
    fn answers_come_behind_warnings() {
        let (conversation, process) = two();
        say(&process, &Said::Warning("the guest makes no sense".into()));
        say(&process, &Said::Answer(Answer::Done));
        assert_eq!(conversation.ask(&Request::State, &[]), Ok(Answer::Done));
        let mut bytes = [0; 100];
        let n = recv(process.as_raw_fd(), &mut bytes, MsgFlags::empty()).unwrap();
        assert_eq!(serde_json::from_slice::<Request>(&bytes[..n]).unwrap(), Request::State);
    }

    #[test]
    fn a_process_that_ends_or_babbles_is_told_at_once() {
        let (conversation, process) = two();
        drop(process);
        assert!(conversation.ask(&Request::State, &[]).is_err());
        let (conversation, process) = two();
        send(process.as_raw_fd(), b"{", MsgFlags::empty()).unwrap();
        let said = conversation.ask(&Request::State, &[]).unwrap_err();
        assert!(said.starts_with("the process"), "{said}");
    }
}
