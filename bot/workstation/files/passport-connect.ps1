# passport-connect: what ssh runs for names that end in .passport, on Windows. Installed by install.ps1.
#
# prepare runs before ssh loads keys (Match exec): it fetches a certificate of minutes for the person's own key.
# tunnel is ssh's ProxyCommand: it asks Passport for a started Session Manager session and hands that to AWS's
# session-manager-plugin. Each time the key signs a challenge of Passport's; there is no other secret.
#
# Nothing that the server says becomes configuration or a file's name unless it matches a pattern here.
# No string in double quotes and nothing run from text: a value never becomes a part of a command.
# For Windows PowerShell 5.1 and later.
param([string]$Act, [string]$Name)

$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'

$Url = '@PUBLIC_URL@'.TrimEnd([char]47)
$Base = $PSScriptRoot
$Servers = $Base + '\hosts'
$Utf8 = New-Object -TypeName System.Text.UTF8Encoding -ArgumentList $false
$PluginPage = 'https://docs.aws.amazon.com/systems-manager/latest/userguide/session-manager-working-with-install-plugin.html'
$Plugin = $env:ProgramFiles + '\Amazon\SessionManagerPlugin\bin\session-manager-plugin.exe'
$OpenSsh = $env:SystemRoot + '\System32\OpenSSH\'
$Patterns = @{
    'request' = '\AAR-[0-9A-Z]{4,8}\z'
    'user' = '\App-[0-9a-z]{4,8}\z'
    'alias' = '\Apassport-m?i-[0-9a-f]{8,17}\z'
    'port' = '\A(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])\z'
    'valid_before' = '\A[0-9]{1,11}\z'
    'certificate' = '\A(?:ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(?:256|384|521)|sk-ssh-ed25519|sk-ecdsa-sha2-nistp256)-cert-v01@openssh\.com AAAA[A-Za-z0-9+/=]{1,16380}\z'
    'host_key' = '\A(?:ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(?:256|384|521)) AAAA[A-Za-z0-9+/=]{1,16380}\z'
    'forwarding' = '\A(?:yes|no)\z'
    'region' = '\A[a-z]{2}(?:-[a-z]{2,12}){1,3}-[0-9]{1,2}\z'
    'response' = '\A\{[ -~]{1,16382}\}\z'
    'parameters' = '\A\{[ !"#$&-\[\]-~]{1,16382}\}\z'
    'endpoint' = '\A(?:https://[a-z0-9.:/-]{1,190}|http://127\.0\.0\.1:[0-9/]{1,20})\z'
    'challenge' = '\A[A-Za-z0-9._~=-]{1,1000}\z'
    'retry_in' = '\A[0-9]{1,4}\z'
}
$Answer = @{}
$HostKeys = @()
$Work = ''
$Code = 0

# --- Words ---------------------------------------------------------------------------------------------------------

# Standard output belongs to ssh.
function Write-Sentence {
    param([string]$Text)
    [Console]::Error.WriteLine('Passport: ' + $Text)
}

function Stop-With {
    param([string]$Text)
    Write-Sentence -Text $Text
    Remove-Work
    exit 1
}

# Somebody's sentence without what a terminal would obey.
function Get-Clean {
    param([string]$Text)
    $clean = $Text -creplace '[\x00-\x1F\x7F-\x9F]', ''
    if ($clean.Length -gt 500) { $clean = $clean.Substring(0, 500) }
    return $clean
}

function Get-Message {
    param([string]$Default)
    $said = Get-Clean -Text ([string]$Answer['message'])
    if ($said) { return $said }
    return $Default
}

function Test-Field {
    param([string]$Field)
    return ([string]$Answer[$Field]) -cmatch $Patterns[$Field]
}

function Test-Fields {
    param([string[]]$Fields)
    foreach ($field in $Fields) {
        if (-not (Test-Field -Field $field)) { return $false }
    }
    return $true
}

function Get-Epoch {
    return [DateTimeOffset]::UtcNow.ToUnixTimeSeconds()
}

# --- Files ---------------------------------------------------------------------------------------------------------

function Write-Whole {
    param([string]$Path, [string]$Text)
    $part = $Path + '.' + [string]$PID
    [IO.File]::WriteAllText($part, $Text, $Utf8)
    if ([IO.File]::Exists($Path)) { [IO.File]::Replace($part, $Path, [NullString]::Value) } else { [IO.File]::Move($part, $Path) }
}

function Open-Work {
    $script:Work = $Base + '\work.' + [IO.Path]::GetRandomFileName()
    $null = [IO.Directory]::CreateDirectory($Work)
}

function Remove-Work {
    if ($Work -and [IO.Directory]::Exists($Work)) { [IO.Directory]::Delete($Work, $true) }
}

# Until when the certificate of this host lasts, and for which request; empty when there is none.
function Get-Prepared {
    param([int]$Seconds)
    $file = $Servers + '\' + $Name + '.until'
    if (-not [IO.File]::Exists($file) -or -not [IO.File]::Exists($Servers + '\' + $Name + '.conf')) { return '' }
    $words = [IO.File]::ReadAllText($file).Trim().Split([char]32)
    if ($words.Length -ne 2 -or $words[0] -cnotmatch $Patterns['valid_before']) { return '' }
    if ([long]$words[0] -le (Get-Epoch) + $Seconds -or $words[1] -cnotmatch $Patterns['request']) { return '' }
    return $words[1]
}

function Remove-Prepared {
    foreach ($part in @('.until', '.conf', '.certificate', '.known_hosts')) {
        [IO.File]::Delete($Servers + '\' + $Name + $part)
    }
}

# --- Programs ------------------------------------------------------------------------------------------------------

function Get-Quoted {
    param([string]$Word)
    return [string][char]34 + $Word.Replace([string][char]34, '\' + [char]34) + [char]34
}

# Starts a program. Passphrases are asked for on the console: standard input belongs to ssh.
function Start-Program {
    param([string]$Path, [string]$Arguments, [bool]$Quiet)
    $start = New-Object -TypeName System.Diagnostics.ProcessStartInfo
    $start.FileName = $Path
    $start.Arguments = $Arguments
    $start.UseShellExecute = $false
    if ($Quiet) {
        $start.RedirectStandardInput = $true
        $start.RedirectStandardOutput = $true
        $start.RedirectStandardError = $true
    }
    return [Diagnostics.Process]::Start($start)
}

# The plugin reads the session from its environment, as AWS's own command line does: everybody can read an argv.
function Start-Plugin {
    param([bool]$Quiet)
    if (-not (Test-Fields -Fields @('region', 'response', 'parameters', 'endpoint'))) {
        Stop-With -Text 'The answer of Passport is not one I can use. Tell your Passport admin.'
    }
    $words = 'AWS_SSM_START_SESSION_RESPONSE ' + $Answer['region'] + ' StartSession ' + (Get-Quoted -Word '') + ' ' +
        (Get-Quoted -Word $Answer['parameters']) + ' ' + $Answer['endpoint']
    $start = New-Object -TypeName System.Diagnostics.ProcessStartInfo
    $start.FileName = $Plugin
    $start.Arguments = $words
    $start.UseShellExecute = $false
    $start.RedirectStandardOutput = $Quiet
    $start.EnvironmentVariables['AWS_SSM_START_SESSION_RESPONSE'] = $Answer['response']
    # It needs no credentials, but newer ones look for some first: not where a laptop waits for an answer.
    $start.EnvironmentVariables['AWS_EC2_METADATA_DISABLED'] = 'true'
    Remove-Work
    return [Diagnostics.Process]::Start($start)
}

function Test-Plugin {
    if (-not [IO.File]::Exists($Plugin)) {
        Stop-With -Text ('The session-manager-plugin of AWS is missing on this laptop. Install it: ' + $PluginPage)
    }
}

# --- Passport ------------------------------------------------------------------------------------------------------

# Whether Passport answered; otherwise $script:Trouble says why not.
function Send-Form {
    param([string]$Path, [hashtable]$Form)
    $script:Answer = @{}
    $script:HostKeys = @()
    $pairs = New-Object -TypeName 'System.Collections.Generic.Dictionary[string,string]'
    foreach ($field in $Form.Keys) { $pairs.Add($field, $Form[$field]) }
    try {
        $content = New-Object -TypeName System.Net.Http.FormUrlEncodedContent -ArgumentList @(, $pairs)
        $reply = $Client.PostAsync($Url + '/workstation/' + $Path, $content).GetAwaiter().GetResult()
        $script:Code = [int]$reply.StatusCode
        $body = $reply.Content.ReadAsStringAsync().GetAwaiter().GetResult()
    } catch {
        $script:Trouble = 'I cannot reach ' + $Url + '. Are you online, or is a VPN missing?'
        return $false
    }
    Read-Answer -Body $body
    if (([string]$Answer['status']) -cmatch '\A(?:ok|ready|wait|busy|refused)\z') { return $true }
    $Answer['status'] = ''
    $script:Trouble = $Url + ' did not answer as Passport does (HTTP ' + $Code +
        '). Try again in a minute; if it stays, tell your Passport admin.'
    return $false
}

# The fields of an answer, unchecked; the first line is the status.
function Read-Answer {
    param([string]$Body)
    if (-not $Body.StartsWith('status=')) { return }
    foreach ($line in $Body.Split([char]10)) {
        $at = $line.IndexOf('=')
        if ($at -lt 1) { continue }
        $field, $value = $line.Substring(0, $at), $line.Substring($at + 1)
        if ($field -ceq 'host_key') { $script:HostKeys += $value }
        elseif ($field -cne 'status' -or -not $Answer.ContainsKey('status')) { $Answer[$field] = $value }
    }
}

# The form that proves possession of the first key that can sign; nothing when none could, or Passport said no.
function New-Proof {
    foreach ($line in [IO.File]::ReadAllLines($Base + '\keys\list')) {
        if ($line -cnotmatch '\A([1-9]) (SHA256:[A-Za-z0-9+/]{43}) (.+)\z') {
            Stop-With -Text ($Base + '\keys\list is damaged. Run the line of /passport setup again.')
        }
        $number, $fingerprint, $identity = $Matches[1], $Matches[2], $Matches[3]
        if (-not (Send-Form -Path 'challenge' -Form @{ 'key' = $fingerprint })) { return $null }
        if ($Answer['status'] -cne 'ok') { return $null }
        if (-not (Test-Field -Field 'challenge')) {
            Stop-With -Text 'The answer of Passport is not one I can use. Tell your Passport admin.'
        }
        $public = [IO.File]::ReadAllText($Base + '\keys\' + $number + '.pub').Trim()
        $signature = Get-Signature -Identity $identity -Public $public -Challenge $Answer['challenge']
        if ($signature) {
            $script:Identity = $identity
            return @{ 'key' = $public; 'host' = $Name; 'challenge' = $Answer['challenge']; 'signature' = $signature }
        }
    }
    Stop-With -Text 'None of your keys could sign. Load it (ssh-add), or run the line of /passport setup again.'
}

function Get-Signature {
    param([string]$Identity, [string]$Public, [string]$Challenge)
    if ($Public.StartsWith('sk-')) { Write-Sentence -Text 'Touch your security key: it proves to Passport that you are you.' }
    $statement = $Work + '\statement'
    $lines = @('passport-workstation-1', $Url, $Act, $Name, $Challenge, '')
    [IO.File]::WriteAllText($statement, [string]::Join([string][char]10, $lines), $Utf8)
    [IO.File]::Delete($statement + '.sig')
    $words = '-Y sign -n workstation@passport -f ' + (Get-Quoted -Word $Identity) + ' ' + (Get-Quoted -Word $statement)
    $signing = Start-Program -Path ($OpenSsh + 'ssh-keygen.exe') -Arguments $words -Quiet $true
    $signing.StandardInput.Close()
    $null = $signing.StandardError.ReadToEnd()
    $signing.WaitForExit()
    if ($signing.ExitCode -ne 0 -or -not [IO.File]::Exists($statement + '.sig')) { return '' }
    return [IO.File]::ReadAllText($statement + '.sig')
}

# Returns when Passport's answer is ready; otherwise says why, and ends.
function Get-Ready {
    param([string]$Path)
    $said = ''
    $heard = $false
    $failures = 0
    $proof = $null
    $provenAt = 0
    while ($true) {
        # Challenges of Passport last 600 seconds.
        if ($null -eq $proof -or (Get-Epoch) - $provenAt -ge 540) {
            $proof = New-Proof
            $provenAt = Get-Epoch
            if ($null -ne $proof -and $Path -ceq 'tunnel') { $proof['act'] = $Act }
        }
        if ($null -ne $proof) { $null = Send-Form -Path $Path -Form $proof }
        $status = [string]$Answer['status']
        if ($status -ceq 'ready' -and $null -ne $proof) { return }
        if ($status -ceq 'refused') {
            Remove-Prepared
            Stop-With -Text (Get-Message -Default ('You have no access to ' + $Name + '. Ask in Slack: /passport request ' + $Name))
        }
        $seconds = 10
        if ($status -ceq 'wait' -or $status -ceq 'busy') {
            $heard = $true
            $failures = 0
            $sentence = Get-Message -Default 'Please wait.'
            $seconds = 5
            if (Test-Field -Field 'retry_in') { $seconds = [Math]::Min([Math]::Max([int]$Answer['retry_in'], 1), 60) }
        } else {
            $failures += 1
            if (-not $heard -or $failures -gt 12) { Stop-With -Text $Trouble }
            $sentence = $Trouble + ' I go on trying.'
        }
        if ($sentence -cne $said) { Write-Sentence -Text $sentence }
        $said = $sentence
        Start-Sleep -Seconds $seconds
    }
}

# --- The acts ------------------------------------------------------------------------------------------------------

function Save-Certificate {
    $right = Test-Fields -Fields @('request', 'user', 'alias', 'port', 'certificate', 'valid_before', 'forwarding')
    foreach ($key in $HostKeys) { $right = $right -and $key -cmatch $Patterns['host_key'] }
    if (-not $right -or $HostKeys.Count -eq 0) {
        Remove-Prepared
        Stop-With -Text 'The answer of Passport is not one I can use, so I wrote nothing. Tell your Passport admin.'
    }
    $file = $Servers + '\' + $Name
    $place = '~/.ssh/passport/hosts/' + $Name
    $known = ''
    foreach ($key in $HostKeys) { $known += $Answer['alias'] + ' ' + $key + [char]10 }
    $lines = @(
        ('Match originalhost ' + $Name + '.passport')
        ('    User ' + $Answer['user'])
        ('    Port ' + $Answer['port'])
        ('    HostKeyAlias ' + $Answer['alias'])
        ('    IdentityFile ' + (Get-Quoted -Word $Identity.Replace([char]92, [char]47)))
        ('    CertificateFile ' + $place + '.certificate')
        ('    UserKnownHostsFile ' + $place + '.known_hosts')
    )
    if ($Answer['forwarding'] -ceq 'no') { $lines += @('    ForwardAgent no', '    ForwardX11 no') }
    Write-Whole -Path ($file + '.known_hosts') -Text $known
    Write-Whole -Path ($file + '.certificate') -Text ($Answer['certificate'] + [char]10)
    Write-Whole -Path ($file + '.conf') -Text ([string]::Join([string][char]10, $lines) + [char]10)
    # The last one says that the others are there.
    Write-Whole -Path ($file + '.until') -Text ($Answer['valid_before'] + ' ' + $Answer['request'] + [char]10)
}

# One at a time asks about a host: an editor starts several ssh at once, and a security key wants one touch, not four.
function Invoke-Prepare {
    if (Get-Prepared -Seconds 60) { return }
    Test-Plugin
    $turn = New-Object -TypeName System.Threading.Mutex -ArgumentList $false, ('Local\passport-' + $Name)
    try { $null = $turn.WaitOne() } catch [System.Threading.AbandonedMutexException] { $null = $turn }
    try {
        if (Get-Prepared -Seconds 60) { return }
        Open-Work
        Get-Ready -Path 'certificate'
        Save-Certificate
        Remove-Work
    } finally { $turn.ReleaseMutex() }
}

function Invoke-Tunnel {
    # Where prepare failed it has said why; ssh asks for a tunnel all the same.
    $prepared = Get-Prepared -Seconds 0
    if (-not $prepared) { Stop-With -Text ('No connection to ' + $Name + '.') }
    Test-Plugin
    Open-Work
    Get-Ready -Path 'tunnel'
    if ($Answer['request'] -and $Answer['request'] -cne $prepared) {
        Remove-Prepared
        Stop-With -Text ($Name + ' is open by another request now. Run the same command again.')
    }
    $running = Start-Plugin -Quiet $false
    $running.WaitForExit()
    exit $running.ExitCode
}

function Invoke-Rdp {
    Test-Plugin
    Open-Work
    Get-Ready -Path 'tunnel'
    if (-not (Test-Field -Field 'user')) {
        Stop-With -Text 'The answer of Passport is not one I can use. Tell your Passport admin.'
    }
    Write-Sentence -Text (Get-Message -Default 'Your password is in Slack: press Show credentials.')
    $running = Start-Plugin -Quiet $true
    while ($null -ne ($line = $running.StandardOutput.ReadLine())) {
        if ($line -cmatch '\APort ([1-9][0-9]{0,4}) opened') { Open-Desktop -Port $Matches[1] }
    }
    $running.WaitForExit()
    exit $running.ExitCode
}

function Open-Desktop {
    param([string]$Port)
    $file = $Servers + '\' + $Name + '.rdp'
    $lines = @(
        ('full address:s:127.0.0.1:' + $Port)
        ('username:s:' + $Answer['user'])
        'prompt for credentials:i:1'
        'drivestoredirect:s:'
        'redirectprinters:i:0'
        ''
    )
    Write-Whole -Path $file -Text ([string]::Join([Environment]::NewLine, $lines))
    Write-Sentence -Text ('Remote Desktop opens 127.0.0.1:' + $Port + ' as ' + $Answer['user'] + '. Ctrl-C here ends the tunnel.')
    $null = Start-Program -Path ($env:SystemRoot + '\System32\mstsc.exe') -Arguments (Get-Quoted -Word $file) -Quiet $false
}

function Show-Status {
    Write-Sentence -Text $Url
    foreach ($line in [IO.File]::ReadAllLines($Base + '\keys\list')) { Write-Sentence -Text ('key ' + $line) }
    if (-not [IO.File]::Exists($Plugin)) { Write-Sentence -Text ('The session-manager-plugin is missing; see ' + $PluginPage) }
    foreach ($file in [IO.Directory]::GetFiles($Servers, '*.until')) {
        $script:Name = [IO.Path]::GetFileNameWithoutExtension($file)
        $for = Get-Prepared -Seconds 0
        if ($for) { Write-Sentence -Text ($Name + '.passport: ' + $for) }
    }
}

function Uninstall-Passport {
    $config = [IO.Path]::GetDirectoryName($Base) + '\config'
    if ([IO.File]::Exists($config)) {
        $kept = @([IO.File]::ReadAllLines($config)) -notmatch '\A\s*Include\s+passport/config\s*\z'
        Write-Whole -Path $config -Text ([string]::Join([Environment]::NewLine, @($kept) + ''))
    }
    [IO.File]::Delete($env:LOCALAPPDATA + '\Microsoft\WindowsApps\passport-connect.cmd')
    [IO.Directory]::Delete($Base, $true)
    Write-Sentence -Text 'Passport is gone from this laptop. In Slack, /passport key remove forgets your key.'
}

function Show-Usage {
    Write-Sentence -Text 'passport-connect rdp NAME | status | uninstall. From there on: ssh NAME.passport'
}

# 3072 is TLS 1.2, which older Windows does not offer by itself. No redirects: this is the only address that is asked.
[Net.ServicePointManager]::SecurityProtocol = [Net.ServicePointManager]::SecurityProtocol -bor 3072
Add-Type -AssemblyName System.Net.Http
$Options = New-Object -TypeName System.Net.Http.HttpClientHandler
$Options.AllowAutoRedirect = $false
$Client = New-Object -TypeName System.Net.Http.HttpClient -ArgumentList $Options
$Client.Timeout = New-TimeSpan -Seconds 40
$Client.MaxResponseContentBufferSize = 100000
$Trouble = ''
$Identity = ''

if ($Act -ceq 'status') { Show-Status; exit 0 }
if ($Act -ceq 'uninstall') { Uninstall-Passport; exit 0 }
if (@('prepare', 'tunnel', 'rdp') -cnotcontains $Act) { Show-Usage; exit 2 }
if ($env:PASSPORT_SELF_TEST -and $Act -ceq 'prepare') { exit 0 }
$Name = $Name.ToLowerInvariant() -creplace '\.passport\z', ''
if ($Name -cnotmatch '\A[a-z0-9][a-z0-9._-]{0,199}\z') {
    Stop-With -Text 'That is no name of a server. Say it like this: web-1.passport'
}
try {
    if ($Act -ceq 'prepare') {
        $Act = 'certificate'
        Invoke-Prepare
    } elseif ($Act -ceq 'tunnel') { Invoke-Tunnel } else { Invoke-Rdp }
} finally { Remove-Work }
exit 0
# end of passport-connect
