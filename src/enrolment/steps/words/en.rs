//! English.

use super::Words;

pub(super) const WORDS: Words = Words {
    lang: "en",
    language: "English",
    heading: "Set up {{device}}",
    purpose: "The certificate lets this device in through your gate.",
    purpose_until: "The certificate lets this device in through your gate, until {{date}}.",
    password_folder: "The archives ask for the password that was shown when they were made, and that is stored nowhere. Lost? <code>doorward share {{device_word}}</code> makes new ones and hands them over.",
    password_link: "Choose your device below and download its file. The file asks for the password that the terminal shows.",
    keep: "Chrome, Edge and other browsers may say that the download is not secure or was blocked: choose <i>Keep</i>. The file is encrypted. If it was discarded, download it again: this device can, until the link expires.",
    iphone: r#"<ol>
<li>{{get_profile}} (From a web page in Safari: other browsers only save the file.)</li>
<li><i>Settings</i> says that a profile was downloaded (else: <i>General</i>, <i>VPN &amp; Device Management</i>). Choose “{{device}}”. It says <i>Not Signed</i>, which is right: the device could not check a signature yet. Compare the fingerprint of “{{root}}” under <i>More Details</i>: {{compare}}.</li>
<li><i>Install</i>. It asks for the device’s own code, and then for the password of the archive.</li>
<li><i>Settings</i>, <i>General</i>, <i>About</i>, <i>Certificate Trust Settings</i>: switch “{{root}}” on. Otherwise Safari does not trust the gate.</li>
<li>{{open}} Safari asks whether to show the certificate “{{device}}”. Other apps cannot use it, unless they can import it themselves.</li>
</ol>"#,
    iphone_public: r#"<ol>
<li>{{get_profile}} (From a web page in Safari: other browsers only save the file.)</li>
<li><i>Settings</i> says that a profile was downloaded (else: <i>General</i>, <i>VPN &amp; Device Management</i>). Choose “{{device}}”. It says <i>Not Signed</i>, which is right. It contains one certificate, that of “{{device}}”: if it contains another one, do not go on.</li>
<li><i>Install</i>. It asks for the device’s own code, and then for the password of the archive.</li>
<li>{{open}} Safari asks whether to show the certificate “{{device}}”. Other apps cannot use it, unless they can import it themselves.</li>
</ol>"#,
    android: r#"<ol>
<li>First the authority: {{get_root}} Then <i>Settings</i>, search for <i>certificate</i>: <i>Install a certificate</i>, <i>CA certificate</i>, choose the file. Android warns that the network may be watched. {{android_warning}}</li>
<li>Then the certificate. {{get_archive_compat}} If Android does not ask for the password: <i>Install a certificate</i> again, <i>VPN &amp; app user certificate</i>, choose the file.</li>
<li>{{open}} Chrome asks which certificate to show. Firefox for Android shows none: use Chrome.</li>
</ol>"#,
    android_public: r#"<ol>
<li>{{get_archive_compat}} If Android does not ask for the password: <i>Settings</i>, search for <i>certificate</i>: <i>Install a certificate</i>, <i>VPN &amp; app user certificate</i>, choose the file.</li>
<li>{{open}} Chrome asks which certificate to show. Firefox for Android shows none: use Chrome.</li>
</ol>"#,
    mac: r#"<ol>
<li>{{get_profile}} Open the file.</li>
<li><i>System Settings</i>, <i>General</i>, <i>Device Management</i> (before macOS 15: <i>Privacy &amp; Security</i>, <i>Profiles</i>): double-click “{{device}}”, compare the fingerprint of “{{root}}” ({{compare}}), and <i>Install</i>. It asks for the password of the archive.</li>
<li>Does the browser still not trust the gate? <i>Keychain Access</i>: open “{{root}}”, unfold <i>Trust</i>, choose <i>Always Trust</i> for SSL.</li>
<li>{{open}} Safari, Chrome or Edge asks once which certificate to show, and macOS whether the browser may use the key: <i>Always Allow</i>. (Firefox has a store of its own: see “Linux, Firefox”.)</li>
</ol>"#,
    mac_public: r#"<ol>
<li>{{get_profile}} Open the file.</li>
<li><i>System Settings</i>, <i>General</i>, <i>Device Management</i> (before macOS 15: <i>Privacy &amp; Security</i>, <i>Profiles</i>): double-click “{{device}}”. It contains one certificate, that of “{{device}}”: if it contains another one, do not go on. <i>Install</i>: it asks for the password of the archive.</li>
<li>{{open}} Safari, Chrome or Edge asks once which certificate to show, and macOS whether the browser may use the key: <i>Always Allow</i>. (Firefox has a store of its own: see “Linux, Firefox”.)</li>
</ol>"#,
    windows: r#"<ol>
<li>First the authority, in case you need it: {{get_root}} Then the certificate. {{get_archive}} Double-click it.</li>
<li>The wizard asks for <i>Current User</i> and for the password of the archive; leave the store to be chosen automatically.</li>
<li>Windows asks whether to trust the root “{{root}}”: <i>Yes</i>. If it did not ask: double-click <code>{{root_file}}</code>, <i>Install Certificate</i>, <i>Current User</i>, <i>Trusted Root Certification Authorities</i>.</li>
<li>{{open}} Edge or Chrome asks which certificate to show. (Firefox has a store of its own: see “Linux, Firefox”.)</li>
</ol>"#,
    windows_public: r#"<ol>
<li>{{get_archive}} Double-click it.</li>
<li>The wizard asks for <i>Current User</i> and for the password of the archive; leave the store to be chosen automatically. If Windows asks whether to trust a root: <i>No</i>, the file has none.</li>
<li>{{open}} Edge or Chrome asks which certificate to show. (Firefox has a store of its own: see “Linux, Firefox”.)</li>
</ol>"#,
    linux: r#"<ol>
<li>First the authority: {{get_root}} Then the certificate. {{get_archive}}</li>
<li><b>Firefox</b> (on Windows and macOS, too): <i>Settings</i>, <i>Privacy &amp; Security</i>, <i>Certificates</i>, <i>View Certificates</i>. Under <i>Your Certificates</i> <i>Import</i> <code>{{archive}}</code>; under <i>Authorities</i> <i>Import</i> <code>{{root_file}}</code> and tick <i>trust this CA to identify websites</i>.</li>
<li><b>Chromium, Chrome</b>, with <code>apt install libnss3-tools</code>; the first command asks for the password of the archive:
<pre>{{nss}}</pre></li>
<li>{{open}} The browser asks which certificate to show.</li>
</ol>"#,
    linux_public: r#"<ol>
<li>{{get_archive}}</li>
<li><b>Firefox</b> (on Windows and macOS, too): <i>Settings</i>, <i>Privacy &amp; Security</i>, <i>Certificates</i>, <i>View Certificates</i>. Under <i>Your Certificates</i> <i>Import</i> <code>{{archive}}</code>.</li>
<li><b>Chromium, Chrome</b>, with <code>apt install libnss3-tools</code>; the command asks for the password of the archive:
<pre>{{nss}}</pre></li>
<li>{{open}} The browser asks which certificate to show.</li>
</ol>"#,
    programs_title: "curl, ssh and other programs",
    join: r#"<p class="first"><b>ssh, file shares and other programs</b>, on a computer that has the program <code>doorward</code>:</p>
<ol>
<li>{{get_bundle}}</li>
<li>In the folder of that file: <code>doorward join {{bundle}}</code>. It asks for the password of the archive, and says how each service is reached.</li>
</ol>"#,
    programs: r#"<p class="first">Put <code>{{root_file}}</code>, <code>{{certificate}}</code> and <code>{{key}}</code> into a folder <code>doorward</code> in your home folder. The key is not encrypted: <code>chmod 600</code> it.</p>
<p><b>curl</b>, in that folder:</p>
<pre>{{curl}}</pre>
<p>or with the archive, which asks for its password:</p>
<pre>{{curl_archive}}</pre>
{{ssh}}"#,
    programs_public: r#"<p class="first">Put <code>{{certificate}}</code> and <code>{{key}}</code> into a folder <code>doorward</code> in your home folder. The key is not encrypted: <code>chmod 600</code> it.</p>
<p><b>curl</b>, in that folder:</p>
<pre>{{curl}}</pre>
<p>or with the archive, which asks for its password:</p>
<pre>{{curl_archive}}</pre>
{{ssh}}"#,
    ssh: "<p><b>ssh, sftp, scp, rsync</b>: append <code>{{ssh_file}}</code> to <code>~/.ssh/config</code>. On a Mac, <code>openssl</code> is LibreSSL, which does not know all of these options: use <code>doorward join</code> there, or OpenSSL of Homebrew.</p>",
    take: "Take {{link}}.",
    get: "Get {{file}}",
    open: "Open {{urls}}.",
    open_unknown: "Open the address of your service.",
    android_warning: "That is true of any authority but this one, which can vouch for your own domain only.",
    unconstrained: "Anyone who has the key of this authority can pose as any site to a device that trusts it: keep the key safe. <code>doorward ca init</code> makes an authority that can vouch for your own domain only.",
    compare_folder: "it must be the one at the end of this page",
    compare_link: "it must be the one in the terminal",
    authority_folder: "The authority “{{root}}” has this SHA-256 fingerprint. If a device shows another one, do not go on:<br><code>{{fingerprint}}</code>",
    authority_link: "Before this device trusts “{{root}}”, compare the authority’s SHA-256 fingerprint with the one in the terminal.",
    no_data: "This link accepts no data.",
    not_found: "There is nothing here.",
    begins: "The download begins.",
    busy: "The file is being downloaded at this moment.",
    other_device: "Another device has downloaded its file here, and the link works for that device only. If it is not yours: the file is worthless without its password, but read what the terminal says. For a new link, run the command again.",
    closed: "This link was closed or has expired. For a new link, run the command again.",
    use_buttons: "Open the link itself, and use the buttons of its page.",
};
