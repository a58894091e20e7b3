# Sets a Windows laptop up for Passport: the line of /passport setup runs this. No secret comes with it.
#
# It writes .ssh\passport and one Include line at the top of .ssh\config, both in your own profile. Running it again
# brings all up to date. It runs in your own PowerShell, so it never exits: what goes wrong is thrown.
# No string in double quotes and nothing run from text: a value never becomes a part of a command.
param([Parameter(ValueFromRemainingArguments = $true)][string[]]$Wanted)

$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'

$Url = '@PUBLIC_URL@'.TrimEnd([char]47)
$Ssh = $env:USERPROFILE + '\.ssh'
$Base = $Ssh + '\passport'
$OpenSsh = $env:SystemRoot + '\System32\OpenSSH\'
$PowerShell = $env:SystemRoot + '\System32\WindowsPowerShell\v1.0\powershell.exe'
$Plugin = $env:ProgramFiles + '\Amazon\SessionManagerPlugin\bin\session-manager-plugin.exe'
$PluginPage = 'https://docs.aws.amazon.com/systems-manager/latest/userguide/session-manager-working-with-install-plugin.html'
$Utf8 = New-Object -TypeName System.Text.UTF8Encoding -ArgumentList $false
$Line = 'Include passport/config'

function Write-Sentence {
    param([string]$Text)
    Write-Host -Object ('Passport: ' + $Text)
}

# What a program of OpenSSH prints; empty when it fails.
function Read-Program {
    param([string]$Program, [string]$Arguments)
    $start = New-Object -TypeName System.Diagnostics.ProcessStartInfo
    $start.FileName = $OpenSsh + $Program
    $start.Arguments = $Arguments
    $start.UseShellExecute = $false
    $start.RedirectStandardOutput = $true
    $running = [Diagnostics.Process]::Start($start)
    $said = $running.StandardOutput.ReadToEnd()
    $running.WaitForExit()
    if ($running.ExitCode -ne 0) { return '' }
    return $said
}

function Get-Quoted {
    param([string]$Word)
    return [string][char]34 + $Word + [char]34
}

# ssh_config and cmd.exe take the short form of a folder whose name has blanks.
function Get-Short {
    param([string]$Path)
    if ($Path -cmatch '\A[A-Za-z0-9._:~\\-]+\z') { return $Path }
    $files = [Activator]::CreateInstance([Type]::GetTypeFromProgID('Scripting.FileSystemObject'))
    $short = $files.GetFolder($Path).ShortPath
    if ($short -cmatch '\A[A-Za-z0-9._:~\\-]+\z') { return $short }
    throw ('Passport: the name of your profile has characters that ssh_config cannot hold: ' + $Path)
}

function Test-Public {
    param([string]$File, [string]$Fingerprint)
    $said = Read-Program -Program 'ssh-keygen.exe' -Arguments ('-l -E sha256 -f ' + (Get-Quoted -Word $File))
    return $said.Split([char]32) -ccontains $Fingerprint
}

# The line of a key in the list, and its public half in keys\N.pub; empty when it is not on this laptop.
function Find-Key {
    param([string]$Fingerprint, [int]$Number)
    $public = $Base + '\keys\' + [string]$Number + '.pub'
    foreach ($file in [IO.Directory]::GetFiles($Ssh, '*.pub')) {
        $private = $file -creplace '\.pub\z', ''
        if ($private.Contains([string][char]34) -or -not [IO.File]::Exists($private)) { continue }
        if (Test-Public -File $file -Fingerprint $Fingerprint) {
            $words = [IO.File]::ReadAllText($file).Trim().Split([char]32)
            [IO.File]::WriteAllText($public, $words[0] + ' ' + $words[1] + [char]10, $Utf8)
            return [string]$Number + ' ' + $Fingerprint + ' ' + $private
        }
    }
    $held = Read-Program -Program 'ssh-add.exe' -Arguments '-L'
    foreach ($key in $held.Split([char]10)) {
        if ($key.Trim() -cnotmatch '\A([a-z0-9@.-]+) ([A-Za-z0-9+/=]+)(?: |\z)') { continue }
        [IO.File]::WriteAllText($public, $Matches[1] + ' ' + $Matches[2] + [char]10, $Utf8)
        if (Test-Public -File $public -Fingerprint $Fingerprint) {
            return [string]$Number + ' ' + $Fingerprint + ' ' + $public
        }
    }
    [IO.File]::Delete($public)
    return ''
}

function Read-File {
    param([string]$Name, [string]$Last)
    $reply = $Client.GetAsync($Url + '/workstation/' + $Name).GetAwaiter().GetResult()
    if (-not $reply.IsSuccessStatusCode) { throw ('Passport: I cannot download ' + $Name + '. Try again in a minute.') }
    $text = $reply.Content.ReadAsStringAsync().GetAwaiter().GetResult()
    if (-not $text.TrimEnd().EndsWith($Last)) { throw 'Passport: what I downloaded is not whole. Run this again.' }
    return $text
}

# Our line comes first: of two values for one option, ssh takes the first.
function Add-Line {
    $config = $Ssh + '\config'
    $kept = @()
    if ([IO.File]::Exists($config)) {
        $kept = @([IO.File]::ReadAllLines($config) -cnotmatch '\A\s*Include\s+passport/config\s*\z')
        [IO.File]::Copy($config, $config + '.before-passport', $true)
    }
    [IO.File]::WriteAllText($config, [string]::Join([Environment]::NewLine, @($Line) + $kept + ''), $Utf8)
}

if (-not $Wanted) { throw 'Passport: name your key by its fingerprint. In Slack, /passport setup shows the whole line.' }
foreach ($fingerprint in $Wanted) {
    if ($fingerprint -cnotmatch '\ASHA256:[A-Za-z0-9+/]{43}\z') { throw 'Passport: that is no fingerprint. /passport setup shows the line.' }
}
if (-not [IO.File]::Exists($OpenSsh + 'ssh-keygen.exe')) {
    throw 'Passport: the OpenSSH client of Windows is missing. Add it under Optional features, then run this again.'
}
$null = [IO.Directory]::CreateDirectory($Base + '\hosts')
$null = [IO.Directory]::CreateDirectory($Base + '\keys')

# 3072 is TLS 1.2, which older Windows does not offer by itself.
[Net.ServicePointManager]::SecurityProtocol = [Net.ServicePointManager]::SecurityProtocol -bor 3072
Add-Type -AssemblyName System.Net.Http
$Options = New-Object -TypeName System.Net.Http.HttpClientHandler
$Options.AllowAutoRedirect = $false
$Client = New-Object -TypeName System.Net.Http.HttpClient -ArgumentList $Options
$Client.Timeout = New-TimeSpan -Seconds 60

$list = @()
foreach ($fingerprint in $Wanted) {
    $found = Find-Key -Fingerprint $fingerprint -Number ($list.Count + 1)
    if ($found -and $list.Count -lt 9) { $list += $found }
}
if ($list.Count -eq 0) {
    throw 'Passport: none of your registered keys is on this laptop. Start your agent (ssh-add), or register a key of this laptop in Slack: /passport key add'
}
$script = Read-File -Name 'passport-connect.ps1' -Last '# end of passport-connect'
$template = Read-File -Name 'ssh_config_windows' -Last '# end of ssh_config'
$connect = (Get-Short -Path $Base) + '\passport-connect.ps1'
[IO.File]::WriteAllText($Base + '\keys\list', [string]::Join([string][char]10, $list + ''), $Utf8)
[IO.File]::WriteAllText($Base + '\passport-connect.ps1', $script, $Utf8)
[IO.File]::WriteAllText($Base + '\config', $template.Replace('@POWERSHELL@', $PowerShell).Replace('@CONNECT@', $connect), $Utf8)
Add-Line
# This folder is on everybody's PATH since Windows 10.
$short = $env:LOCALAPPDATA + '\Microsoft\WindowsApps'
if ([IO.Directory]::Exists($short)) {
    $words = '@' + $PowerShell + ' -NoProfile -ExecutionPolicy Bypass -File ' + $connect + ' %*'
    [IO.File]::WriteAllText($short + '\passport-connect.cmd', $words + [Environment]::NewLine, $Utf8)
}
if (-not [IO.File]::Exists($Plugin)) {
    Write-Sentence -Text ('One thing is missing: the session-manager-plugin of AWS. Install it: ' + $PluginPage)
}
Write-Sentence -Text 'Ready. For a server that is open for you: ssh NAME.passport. For a Windows server: passport-connect rdp NAME'
# end of install
