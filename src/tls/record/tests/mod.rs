//! Tests of the record layer.

mod key_update;
mod messages;
mod opening;
mod sealing;

use std::io::{Read, Write};

use rustls::client::ClientConnection;
use rustls::{AlertDescription, CipherSuite};

use super::inbound::{EMPTY_MAX, KEY_UPDATES_MAX};
use super::testing::{Forger, Random, SUITES, TLS12, TLS13, established, forged, is_tls13};
use super::*;

const UNEXPECTED_MESSAGE: RecordError = RecordError(Alert::UNEXPECTED_MESSAGE);
const DECODE_ERROR: RecordError = RecordError(Alert::DECODE_ERROR);
const BAD_RECORD_MAC: RecordError = RecordError(Alert(20));
const RECORD_OVERFLOW: RecordError = RecordError(Alert(22));
const ILLEGAL_PARAMETER: RecordError = RecordError(Alert(47));

const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];
const KEY_UPDATE_REQUESTED: [u8; 5] = [24, 0, 0, 1, 1];

/// The sealed records that the client has to send.
fn sent(client: &mut ClientConnection) -> Vec<u8> {
    let mut wire = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut wire).expect("memory");
    }
    wire
}

/// Opens all records. Returns the application data and the results for the other records.
fn open_all(session: &mut Session, mut wire: Vec<u8>) -> (Vec<u8>, Vec<Opened>) {
    let (mut data, mut others) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < wire.len() {
        let opened = session.open(&mut wire[at..]).expect("a legal record");
        match opened {
            Opened::Data { consumed, plaintext } => {
                data.extend_from_slice(&wire[at + plaintext.start..at + plaintext.end]);
                at += consumed;
            }
            Opened::Nothing { consumed }
            | Opened::KeyUpdateRequested { consumed }
            | Opened::Renegotiation { consumed }
            | Opened::Closed { consumed } => {
                others.push(opened);
                at += consumed;
            }
            Opened::Incomplete(_) | Opened::Alert(_) => panic!("{opened:?}"),
        }
    }
    (data, others)
}

/// Seals one record of application data.
fn seal(session: &mut Session, payload: &[u8]) -> Vec<u8> {
    // The previous content of the buffer must not matter.
    let mut record = vec![0xaa; session.prefix_length() + payload.len() + session.suffix_length()];
    let start = session.prefix_length();
    record[start..start + payload.len()].copy_from_slice(payload);
    session.seal_data(&mut record).expect("within the limit");
    record
}

/// Has the client process these records. Returns their application data.
fn receive(client: &mut ClientConnection, mut wire: &[u8]) -> Result<Vec<u8>, Error> {
    let mut data = Vec::new();
    while !wire.is_empty() {
        client.read_tls(&mut wire).expect("memory");
        client.process_new_packets()?;
        let mut part = vec![0; 1 << 16];
        while let Ok(length @ 1..) = client.reader().read(&mut part) {
            data.extend_from_slice(&part[..length]);
        }
    }
    Ok(data)
}
