//! Chinese, in simplified characters.

use super::Words;

pub(super) const WORDS: Words = Words {
    lang: "zh-Hans",
    language: "中文",
    heading: "设置 {{device}}",
    purpose: "此设备凭该证书通过您的网关。",
    purpose_until: "此设备凭该证书通过您的网关，有效期至 {{date}}。",
    password_folder: "打开证书文件需要密码。密码只在生成文件时显示过一次，没有保存在任何地方。忘记了？<code>doorward share {{device_word}}</code> 会生成新文件并传给设备。",
    password_link: "请在下面选择您的设备并下载对应的文件。打开文件时需要输入终端里显示的密码。",
    keep: "Chrome、Edge 等浏览器可能提示下载不安全或已被阻止：请选择<i>保留</i>（<i>Keep</i>）。文件是加密的。如果文件被舍弃，可以重新下载：链接失效之前，此设备可以多次下载。",
    iphone: r#"<ol>
<li>{{get_profile}}（请用 Safari 打开本页：其他浏览器只会保存文件。）</li>
<li><i>设置</i>中会提示已下载描述文件（如果没有：<i>通用</i>、<i>VPN与设备管理</i>）。选择“{{device}}”。显示<i>未签名</i>是正常的：设备此时还无法验证签名。在<i>更多详细信息</i>中核对“{{root}}”的指纹：{{compare}}。</li>
<li>点按<i>安装</i>。先输入设备的锁屏密码，再输入证书文件的密码。</li>
<li><i>设置</i>、<i>通用</i>、<i>关于本机</i>、<i>证书信任设置</i>：打开“{{root}}”的开关。否则 Safari 不信任该网关。</li>
<li>{{open}}Safari 会询问是否出示证书“{{device}}”。其他 App 无法使用此证书，除非它们自己能导入。</li>
</ol>"#,
    iphone_public: r#"<ol>
<li>{{get_profile}}（请用 Safari 打开本页：其他浏览器只会保存文件。）</li>
<li><i>设置</i>中会提示已下载描述文件（如果没有：<i>通用</i>、<i>VPN与设备管理</i>）。选择“{{device}}”。显示<i>未签名</i>是正常的。其中只包含一个证书，即“{{device}}”的证书：如果还有其他证书，请停止操作。</li>
<li>点按<i>安装</i>。先输入设备的锁屏密码，再输入证书文件的密码。</li>
<li>{{open}}Safari 会询问是否出示证书“{{device}}”。其他 App 无法使用此证书，除非它们自己能导入。</li>
</ol>"#,
    android: r#"<ol>
<li>先安装证书颁发机构：{{get_root}}然后打开<i>设置</i>，搜索<i>证书</i>：<i>安装证书</i>、<i>CA 证书</i>，选择该文件。Android 会警告网络可能受到监控。{{android_warning}}</li>
<li>再安装证书。{{get_archive_compat}}如果 Android 没有询问密码：再次进入<i>安装证书</i>，选择<i>VPN 和应用用户证书</i>，选择该文件。</li>
<li>{{open}}Chrome 会询问出示哪个证书。Android 版 Firefox 不能出示证书：请使用 Chrome。</li>
</ol>"#,
    android_public: r#"<ol>
<li>{{get_archive_compat}}如果 Android 没有询问密码：打开<i>设置</i>，搜索<i>证书</i>：<i>安装证书</i>、<i>VPN 和应用用户证书</i>，选择该文件。</li>
<li>{{open}}Chrome 会询问出示哪个证书。Android 版 Firefox 不能出示证书：请使用 Chrome。</li>
</ol>"#,
    mac: r#"<ol>
<li>{{get_profile}}打开该文件。</li>
<li><i>系统设置</i>、<i>通用</i>、<i>设备管理</i>（macOS 15 之前：<i>隐私与安全性</i>、<i>描述文件</i>）：双击“{{device}}”，核对“{{root}}”的指纹（{{compare}}），然后<i>安装</i>。需要输入证书文件的密码。</li>
<li>浏览器仍不信任该网关？在<i>钥匙串访问</i>中打开“{{root}}”，展开<i>信任</i>，将 SSL 设为<i>始终信任</i>。</li>
<li>{{open}}Safari、Chrome 或 Edge 会询问一次出示哪个证书，macOS 会询问是否允许浏览器使用密钥：<i>始终允许</i>。（Firefox 有自己的证书库：见“Linux, Firefox”。）</li>
</ol>"#,
    mac_public: r#"<ol>
<li>{{get_profile}}打开该文件。</li>
<li><i>系统设置</i>、<i>通用</i>、<i>设备管理</i>（macOS 15 之前：<i>隐私与安全性</i>、<i>描述文件</i>）：双击“{{device}}”。其中只包含一个证书，即“{{device}}”的证书：如果还有其他证书，请停止操作。然后<i>安装</i>，需要输入证书文件的密码。</li>
<li>{{open}}Safari、Chrome 或 Edge 会询问一次出示哪个证书，macOS 会询问是否允许浏览器使用密钥：<i>始终允许</i>。（Firefox 有自己的证书库：见“Linux, Firefox”。）</li>
</ol>"#,
    windows: r#"<ol>
<li>如有需要，先下载证书颁发机构的证书：{{get_root}}再下载设备的证书。{{get_archive}}双击该文件。</li>
<li>向导中选择<i>当前用户</i>，输入证书文件的密码；证书存储位置请选自动选择。</li>
<li>Windows 会询问是否信任根证书“{{root}}”：选<i>是</i>。如果没有询问：双击 <code>{{root_file}}</code>，<i>安装证书</i>、<i>当前用户</i>、<i>受信任的根证书颁发机构</i>。</li>
<li>{{open}}Edge 或 Chrome 会询问出示哪个证书。（Firefox 有自己的证书库：见“Linux, Firefox”。）</li>
</ol>"#,
    windows_public: r#"<ol>
<li>{{get_archive}}双击该文件。</li>
<li>向导中选择<i>当前用户</i>，输入证书文件的密码；证书存储位置请选自动选择。如果 Windows 询问是否信任某个根证书：选<i>否</i>，该文件中没有根证书。</li>
<li>{{open}}Edge 或 Chrome 会询问出示哪个证书。（Firefox 有自己的证书库：见“Linux, Firefox”。）</li>
</ol>"#,
    linux: r#"<ol>
<li>先下载证书颁发机构的证书：{{get_root}}再下载设备的证书。{{get_archive}}</li>
<li><b>Firefox</b>（也适用于 Windows 和 macOS）：<i>设置</i>、<i>隐私与安全</i>、<i>证书</i>、<i>查看证书</i>。在<i>您的证书</i>中<i>导入</i> <code>{{archive}}</code>；在<i>证书颁发机构</i>中<i>导入</i> <code>{{root_file}}</code>，并勾选<i>信任由此证书颁发机构来标识网站</i>。</li>
<li><b>Chromium、Chrome</b>，需要 <code>apt install libnss3-tools</code>；第一条命令会询问证书文件的密码：
<pre>{{nss}}</pre></li>
<li>{{open}}浏览器会询问出示哪个证书。</li>
</ol>"#,
    linux_public: r#"<ol>
<li>{{get_archive}}</li>
<li><b>Firefox</b>（也适用于 Windows 和 macOS）：<i>设置</i>、<i>隐私与安全</i>、<i>证书</i>、<i>查看证书</i>。在<i>您的证书</i>中<i>导入</i> <code>{{archive}}</code>。</li>
<li><b>Chromium、Chrome</b>，需要 <code>apt install libnss3-tools</code>；该命令会询问证书文件的密码：
<pre>{{nss}}</pre></li>
<li>{{open}}浏览器会询问出示哪个证书。</li>
</ol>"#,
    programs_title: "curl、ssh 及其他程序",
    join: r#"<p class="first"><b>ssh、文件共享及其他程序</b>，在装有 <code>doorward</code> 程序的电脑上：</p>
<ol>
<li>{{get_bundle}}</li>
<li>在该文件所在的文件夹中执行：<code>doorward join {{bundle}}</code>。它会询问证书文件的密码，并说明如何访问每项服务。</li>
</ol>"#,
    programs: r#"<p class="first">把 <code>{{root_file}}</code>、<code>{{certificate}}</code> 和 <code>{{key}}</code> 放入主目录下的 <code>doorward</code> 文件夹。密钥没有加密：请执行 <code>chmod 600</code>。</p>
<p><b>curl</b>，在该文件夹中：</p>
<pre>{{curl}}</pre>
<p>或使用证书文件，它会询问密码：</p>
<pre>{{curl_archive}}</pre>
{{ssh}}"#,
    programs_public: r#"<p class="first">把 <code>{{certificate}}</code> 和 <code>{{key}}</code> 放入主目录下的 <code>doorward</code> 文件夹。密钥没有加密：请执行 <code>chmod 600</code>。</p>
<p><b>curl</b>，在该文件夹中：</p>
<pre>{{curl}}</pre>
<p>或使用证书文件，它会询问密码：</p>
<pre>{{curl_archive}}</pre>
{{ssh}}"#,
    ssh: "<p><b>ssh、sftp、scp、rsync</b>：把 <code>{{ssh_file}}</code> 的内容追加到 <code>~/.ssh/config</code>。在 Mac 上，<code>openssl</code> 是 LibreSSL，不支持其中的部分选项：请改用 <code>doorward join</code>，或 Homebrew 的 OpenSSL。</p>",
    take: "请下载 {{link}}。",
    get: "下载 {{file}}",
    open: "打开 {{urls}}。",
    open_unknown: "打开您的服务地址。",
    android_warning: "这对任何其他证书颁发机构都成立，但此机构只能为您自己的域名作证。",
    unconstrained: "谁拥有此证书颁发机构的密钥，谁就能向信任它的设备冒充任何网站：请妥善保管密钥。<code>doorward ca init</code> 可以生成只能为您自己的域名作证的机构。",
    compare_folder: "必须与本页末尾的指纹一致",
    compare_link: "必须与终端里的指纹一致",
    authority_folder: "证书颁发机构“{{root}}”的 SHA-256 指纹如下。如果设备上显示的不同，请停止操作：<br><code>{{fingerprint}}</code>",
    authority_link: "在此设备信任“{{root}}”之前，请核对该证书颁发机构的 SHA-256 指纹是否与终端里的一致。",
    no_data: "此链接不接收数据。",
    not_found: "这里什么也没有。",
    begins: "开始下载。",
    busy: "文件正在下载。",
    other_device: "另一台设备已在此下载了文件，链接只对那台设备有效。如果那不是您的设备：没有密码，文件毫无用处，但请查看终端里的提示。如需新链接，请再次运行命令。",
    closed: "此链接已关闭或已失效。如需新链接，请再次运行命令。",
    use_buttons: "请打开链接本身，并使用页面上的按钮。",
};
