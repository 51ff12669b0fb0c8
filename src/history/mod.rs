//! The history: which devices were admitted and what was refused, for each hour, kept across restarts.
//!
//! Bounded in memory and in its folder, whatever strangers send: they change counters of reasons and a bounded number of
//! impostors. Names that they choose are no keys.
//!
//! | file | has |
//! |---|---|
//! | `recorder` | what connections note |
//! | `writer` | the thread that writes it, and what the server does with it |
//! | `overview`, `answers` | what the history tells |
//! | `counts`, `sources` | counts of one hour |
//! | `batch` | what is noted between two writes |
//! | `state` | the sum of all batches |
//! | `lines`, `forms` | the form of the files |
//! | `sample` | a history for tests and benches |
//! | `folder`, `load`, `disk`, `visits` | the files, read and written |

mod answers;
mod batch;
mod counts;
mod disk;
mod folder;
mod forms;
mod lines;
mod load;
mod overview;
mod recorder;
mod sample;
mod sources;
mod state;
#[cfg(test)]
mod tests;
mod visits;
mod writer;

/// Makes a folder for a history, unless it is there.
///
/// # Errors
/// If it cannot be made.
pub fn make_folder(path: &std::path::Path) -> std::io::Result<()> {
    folder::Folder::new(path).make()
}

pub use self::overview::{Backend, Device, DeviceRefused, Hour, Impostor, Noise, Overview, Seen, Trouble, Visit};
pub use self::recorder::{Admitted, History, News};
#[doc(hidden)]
pub use self::sample::write_sample;
pub use self::visits::visits_of_folder;
