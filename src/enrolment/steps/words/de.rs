//! German.

use super::Words;

pub(super) const WORDS: Words = Words {
    lang: "de",
    language: "Deutsch",
    heading: "{{device}} einrichten",
    purpose: "Mit dem Zertifikat kommt dieses Gerät durch Ihr Gate ins Heimnetz.",
    purpose_until: "Mit dem Zertifikat kommt dieses Gerät durch Ihr Gate ins Heimnetz, bis {{date}}.",
    password_folder: "Die Archive verlangen das Passwort, das beim Anlegen angezeigt wurde und nirgends gespeichert ist. Verloren? <code>doorward share {{device_word}}</code> legt neue an und übergibt sie.",
    password_link: "Wählen Sie unten Ihr Gerät und laden Sie seine Datei herunter. Die Datei verlangt das Passwort, das im Terminal steht.",
    keep: "Chrome, Edge und andere Browser melden vielleicht, der Download sei nicht sicher oder blockiert: Wählen Sie <i>Beibehalten</i> (<i>Keep</i>). Die Datei ist verschlüsselt. Wurde sie verworfen, laden Sie sie noch einmal herunter: Dieses Gerät kann das, bis der Link abläuft.",
    iphone: r#"<ol>
<li>{{get_profile}} (In Safari von einer Webseite: Andere Browser speichern die Datei nur.)</li>
<li>Die <i>Einstellungen</i> melden ein geladenes Profil (sonst: <i>Allgemein</i>, <i>VPN und Geräteverwaltung</i>). Wählen Sie „{{device}}“. Dort steht <i>Nicht signiert</i>; das ist richtig so: Das Gerät könnte eine Signatur noch nicht prüfen. Vergleichen Sie unter <i>Weitere Details</i> den Fingerabdruck von „{{root}}“: {{compare}}.</li>
<li><i>Installieren</i>. Gefragt wird nach dem Code des Geräts und danach nach dem Passwort des Archivs.</li>
<li><i>Einstellungen</i>, <i>Allgemein</i>, <i>Info</i>, <i>Zertifikatsvertrauenseinstellungen</i>: Schalten Sie „{{root}}“ ein. Sonst vertraut Safari dem Gate nicht.</li>
<li>{{open}} Safari fragt, ob das Zertifikat „{{device}}“ gezeigt werden soll. Andere Apps können es nicht benutzen, außer sie können es selbst importieren.</li>
</ol>"#,
    iphone_public: r#"<ol>
<li>{{get_profile}} (In Safari von einer Webseite: Andere Browser speichern die Datei nur.)</li>
<li>Die <i>Einstellungen</i> melden ein geladenes Profil (sonst: <i>Allgemein</i>, <i>VPN und Geräteverwaltung</i>). Wählen Sie „{{device}}“. Dort steht <i>Nicht signiert</i>; das ist richtig so. Es enthält ein Zertifikat, das von „{{device}}“: Enthält es ein weiteres, brechen Sie ab.</li>
<li><i>Installieren</i>. Gefragt wird nach dem Code des Geräts und danach nach dem Passwort des Archivs.</li>
<li>{{open}} Safari fragt, ob das Zertifikat „{{device}}“ gezeigt werden soll. Andere Apps können es nicht benutzen, außer sie können es selbst importieren.</li>
</ol>"#,
    android: r#"<ol>
<li>Zuerst die Zertifizierungsstelle: {{get_root}} Dann <i>Einstellungen</i>, nach <i>Zertifikat</i> suchen: <i>Zertifikat installieren</i>, <i>CA-Zertifikat</i>, die Datei wählen. Android warnt, das Netzwerk könne überwacht werden. {{android_warning}}</li>
<li>Dann das Zertifikat. {{get_archive_compat}} Fragt Android nicht nach dem Passwort: noch einmal <i>Zertifikat installieren</i>, <i>VPN- und App-Nutzerzertifikat</i>, die Datei wählen.</li>
<li>{{open}} Chrome fragt, welches Zertifikat gezeigt werden soll. Firefox für Android zeigt keines: Nehmen Sie Chrome.</li>
</ol>"#,
    android_public: r#"<ol>
<li>{{get_archive_compat}} Fragt Android nicht nach dem Passwort: <i>Einstellungen</i>, nach <i>Zertifikat</i> suchen: <i>Zertifikat installieren</i>, <i>VPN- und App-Nutzerzertifikat</i>, die Datei wählen.</li>
<li>{{open}} Chrome fragt, welches Zertifikat gezeigt werden soll. Firefox für Android zeigt keines: Nehmen Sie Chrome.</li>
</ol>"#,
    mac: r#"<ol>
<li>{{get_profile}} Öffnen Sie die Datei.</li>
<li><i>Systemeinstellungen</i>, <i>Allgemein</i>, <i>Geräteverwaltung</i> (vor macOS 15: <i>Datenschutz &amp; Sicherheit</i>, <i>Profile</i>): Doppelklicken Sie auf „{{device}}“, vergleichen Sie den Fingerabdruck von „{{root}}“ ({{compare}}), und <i>Installieren</i>. Gefragt wird nach dem Passwort des Archivs.</li>
<li>Vertraut der Browser dem Gate noch nicht? <i>Schlüsselbundverwaltung</i>: „{{root}}“ öffnen, <i>Vertrauen</i> aufklappen, für SSL <i>Immer vertrauen</i> wählen.</li>
<li>{{open}} Safari, Chrome oder Edge fragt einmal, welches Zertifikat gezeigt werden soll, und macOS, ob der Browser den Schlüssel benutzen darf: <i>Immer erlauben</i>. (Firefox hat einen eigenen Speicher: siehe „Linux, Firefox“.)</li>
</ol>"#,
    mac_public: r#"<ol>
<li>{{get_profile}} Öffnen Sie die Datei.</li>
<li><i>Systemeinstellungen</i>, <i>Allgemein</i>, <i>Geräteverwaltung</i> (vor macOS 15: <i>Datenschutz &amp; Sicherheit</i>, <i>Profile</i>): Doppelklicken Sie auf „{{device}}“. Es enthält ein Zertifikat, das von „{{device}}“: Enthält es ein weiteres, brechen Sie ab. <i>Installieren</i>: Gefragt wird nach dem Passwort des Archivs.</li>
<li>{{open}} Safari, Chrome oder Edge fragt einmal, welches Zertifikat gezeigt werden soll, und macOS, ob der Browser den Schlüssel benutzen darf: <i>Immer erlauben</i>. (Firefox hat einen eigenen Speicher: siehe „Linux, Firefox“.)</li>
</ol>"#,
    windows: r#"<ol>
<li>Zuerst die Zertifizierungsstelle, falls Sie sie brauchen: {{get_root}} Dann das Zertifikat. {{get_archive}} Doppelklicken Sie darauf.</li>
<li>Der Assistent fragt nach <i>Aktueller Benutzer</i> und nach dem Passwort des Archivs; lassen Sie den Speicher automatisch wählen.</li>
<li>Windows fragt, ob der Stammzertifizierungsstelle „{{root}}“ vertraut werden soll: <i>Ja</i>. Wurde nicht gefragt: Doppelklicken Sie auf <code>{{root_file}}</code>, <i>Zertifikat installieren</i>, <i>Aktueller Benutzer</i>, <i>Vertrauenswürdige Stammzertifizierungsstellen</i>.</li>
<li>{{open}} Edge oder Chrome fragt, welches Zertifikat gezeigt werden soll. (Firefox hat einen eigenen Speicher: siehe „Linux, Firefox“.)</li>
</ol>"#,
    windows_public: r#"<ol>
<li>{{get_archive}} Doppelklicken Sie darauf.</li>
<li>Der Assistent fragt nach <i>Aktueller Benutzer</i> und nach dem Passwort des Archivs; lassen Sie den Speicher automatisch wählen. Fragt Windows, ob einer Stammzertifizierungsstelle vertraut werden soll: <i>Nein</i>, die Datei enthält keine.</li>
<li>{{open}} Edge oder Chrome fragt, welches Zertifikat gezeigt werden soll. (Firefox hat einen eigenen Speicher: siehe „Linux, Firefox“.)</li>
</ol>"#,
    linux: r#"<ol>
<li>Zuerst die Zertifizierungsstelle: {{get_root}} Dann das Zertifikat. {{get_archive}}</li>
<li><b>Firefox</b> (auch unter Windows und macOS): <i>Einstellungen</i>, <i>Datenschutz &amp; Sicherheit</i>, <i>Zertifikate</i>, <i>Zertifikate anzeigen</i>. Unter <i>Ihre Zertifikate</i> <i>Importieren</i>: <code>{{archive}}</code>; unter <i>Zertifizierungsstellen</i> <i>Importieren</i>: <code>{{root_file}}</code>, und <i>Dieser CA vertrauen, um Websites zu identifizieren</i> ankreuzen.</li>
<li><b>Chromium, Chrome</b>, mit <code>apt install libnss3-tools</code>; der erste Befehl fragt nach dem Passwort des Archivs:
<pre>{{nss}}</pre></li>
<li>{{open}} Der Browser fragt, welches Zertifikat gezeigt werden soll.</li>
</ol>"#,
    linux_public: r#"<ol>
<li>{{get_archive}}</li>
<li><b>Firefox</b> (auch unter Windows und macOS): <i>Einstellungen</i>, <i>Datenschutz &amp; Sicherheit</i>, <i>Zertifikate</i>, <i>Zertifikate anzeigen</i>. Unter <i>Ihre Zertifikate</i> <i>Importieren</i>: <code>{{archive}}</code>.</li>
<li><b>Chromium, Chrome</b>, mit <code>apt install libnss3-tools</code>; der Befehl fragt nach dem Passwort des Archivs:
<pre>{{nss}}</pre></li>
<li>{{open}} Der Browser fragt, welches Zertifikat gezeigt werden soll.</li>
</ol>"#,
    programs_title: "curl, ssh und andere Programme",
    join: r#"<p class="first"><b>ssh, Dateifreigaben und andere Programme</b> auf einem Computer, der das Programm <code>doorward</code> hat:</p>
<ol>
<li>{{get_bundle}}</li>
<li>Im Ordner dieser Datei: <code>doorward join {{bundle}}</code>. Es fragt nach dem Passwort des Archivs und sagt, wie jeder Dienst zu erreichen ist.</li>
</ol>"#,
    programs: r#"<p class="first">Legen Sie <code>{{root_file}}</code>, <code>{{certificate}}</code> und <code>{{key}}</code> in einen Ordner <code>doorward</code> in Ihrem persönlichen Ordner. Der Schlüssel ist nicht verschlüsselt: <code>chmod 600</code>.</p>
<p><b>curl</b>, in diesem Ordner:</p>
<pre>{{curl}}</pre>
<p>oder mit dem Archiv, das nach seinem Passwort fragt:</p>
<pre>{{curl_archive}}</pre>
{{ssh}}"#,
    programs_public: r#"<p class="first">Legen Sie <code>{{certificate}}</code> und <code>{{key}}</code> in einen Ordner <code>doorward</code> in Ihrem persönlichen Ordner. Der Schlüssel ist nicht verschlüsselt: <code>chmod 600</code>.</p>
<p><b>curl</b>, in diesem Ordner:</p>
<pre>{{curl}}</pre>
<p>oder mit dem Archiv, das nach seinem Passwort fragt:</p>
<pre>{{curl_archive}}</pre>
{{ssh}}"#,
    ssh: "<p><b>ssh, sftp, scp, rsync</b>: Hängen Sie <code>{{ssh_file}}</code> an <code>~/.ssh/config</code> an. Auf dem Mac ist <code>openssl</code> LibreSSL, das nicht alle diese Optionen kennt: Nehmen Sie dort <code>doorward join</code> oder OpenSSL von Homebrew.</p>",
    take: "Laden Sie {{link}}.",
    get: "{{file}} laden",
    open: "Öffnen Sie {{urls}}.",
    open_unknown: "Öffnen Sie die Adresse Ihres Dienstes.",
    android_warning: "Das gilt für jede Zertifizierungsstelle außer dieser, denn sie kann nur für Ihre eigene Domain bürgen.",
    unconstrained: "Mit dem Schlüssel dieser Zertifizierungsstelle lässt sich einem Gerät, das ihr vertraut, jede Website vortäuschen: Verwahren Sie ihn gut. <code>doorward ca init</code> legt eine an, die nur für Ihre eigene Domain bürgen kann.",
    compare_folder: "Es muss der vom Ende dieser Seite sein",
    compare_link: "Es muss der aus dem Terminal sein",
    authority_folder: "Die Zertifizierungsstelle „{{root}}“ hat diesen SHA-256-Fingerabdruck. Zeigt ein Gerät einen anderen, brechen Sie ab:<br><code>{{fingerprint}}</code>",
    authority_link: "Bevor dieses Gerät „{{root}}“ vertraut, vergleichen Sie den SHA-256-Fingerabdruck der Zertifizierungsstelle mit dem im Terminal.",
    no_data: "Dieser Link nimmt keine Daten an.",
    not_found: "Hier ist nichts.",
    begins: "Der Download beginnt.",
    busy: "Die Datei wird gerade heruntergeladen.",
    other_device: "Ein anderes Gerät hat hier seine Datei heruntergeladen, und der Link gilt nur für dieses Gerät. Ist es nicht Ihres: Die Datei ist ohne ihr Passwort wertlos, aber lesen Sie, was im Terminal steht. Für einen neuen Link führen Sie den Befehl noch einmal aus.",
    closed: "Dieser Link wurde geschlossen oder ist abgelaufen. Für einen neuen Link führen Sie den Befehl noch einmal aus.",
    use_buttons: "Öffnen Sie den Link selbst und benutzen Sie die Knöpfe auf seiner Seite.",
};
