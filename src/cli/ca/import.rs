//! `doorward ca import`: an existing authority.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::output::print;
use super::passphrase::PassphraseArg;
use super::{CaError, FolderArg, Format};
use crate::ca::import::{self, Imported, MkcertRoot};

/// The options of `doorward ca import`.
#[derive(Args, Debug)]
pub(super) struct ImportArgs {
    /// Import the authority of mkcert from the folder that "mkcert -CAROOT" prints [default: where mkcert looks]
    ///
    /// Its files stay where they are: mkcert keeps working, and there is no second copy of the key.
    #[arg(long, value_name = "CAROOT", num_args = 0..=1, required = true)]
    #[expect(clippy::option_option, reason = "left out, given, or given with a value: clap's way to say so")]
    mkcert: Option<Option<PathBuf>>,

    #[command(flatten)]
    folder: FolderArg,

    #[command(flatten)]
    passphrase: PassphraseArg,

    /// Output format: text for people on stderr, or JSON on stdout
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    format: Format,
}

#[derive(Serialize)]
struct Written {
    authority: String,
    subject: String,
    certificate: PathBuf,
    key: PathBuf,
    revocation_list: PathBuf,
    signs_lists: bool,
}

pub(super) fn run(args: &ImportArgs) -> Result<(), CaError> {
    let given = args.mkcert.as_ref().and_then(Option::as_ref);
    let folder = given.cloned().or_else(import::mkcert_folder).ok_or_else(|| {
        CaError::usage("the folder of mkcert's files is not known\n  name the one that \"mkcert -CAROOT\" prints")
    })?;
    let root = MkcertRoot::find(&std::path::absolute(&folder)?)?;
    let mut store = args.folder.open_or_create()?;
    let imported = import::import(&mut store, &root, &args.passphrase.prompt())?;
    let text = text(&root.subject, &imported);
    let Imported { authority, certificate, key, revocation_list, signs_lists, .. } = imported;
    let written = Written { authority, subject: root.subject, certificate, key, revocation_list, signs_lists };
    print(args.format, &text, &written)
}

fn text(subject: &str, imported: &Imported) -> String {
    let Imported { authority, is_new, certificate, key, revocation_list, signs_lists } = imported;
    let mut out = format!(
        "{subject} {} {authority:?}. Its files stay where they are:\n  {}\n  {}\nIts revocation list:\n  {}\nThe gate uses \
         both once its configuration says, under [client_auth]:\n  trust = [{:?}]\n  revocation_lists = [{:?}]\nTo revoke a \
         certificate that mkcert issued:\n  doorward ca revoke --file FILE.pem\n",
        if *is_new { "is imported as" } else { "was imported before as" },
        certificate.display(),
        key.display(),
        revocation_list.display(),
        certificate.display().to_string(),
        revocation_list.display().to_string(),
    );
    if !signs_lists {
        out.push_str(NO_CRL_SIGN);
    }
    out.push_str(&format!(
        "note: a stolen {} can impersonate any site to every device that trusts this authority. doorward ca init creates \
         one that is limited to your domain.\n",
        key.display()
    ));
    out
}

/// The limit of an authority whose certificate does not allow signing lists.
pub(super) const NO_CRL_SIGN: &str = "note: the certificate of this authority (as all of mkcert's) does not allow signing \
                                      revocation lists (cRLSign). The gate accepts its lists; OpenSSL and programs built on \
                                      it do not.\n";
