# What every Passport program on a Windows server shares: the framed answer, the lock, and its records.
# It runs as SYSTEM under Windows PowerShell 5.1; nothing is taken from outside except checked parameters.
# No string in double quotes and nothing run from text: a value never becomes a part of a command.

$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'

$Records = 'SOFTWARE\Passport'
$Profiles = 'SOFTWARE\Microsoft\Windows NT\CurrentVersion\ProfileList'
$Folder = $env:ProgramFiles + '\Passport'
$System = $env:SystemRoot + '\System32'
$TaskPath = '\Passport\'
$TombstoneDays = 30
$Lock = $null

# Whatever cmdlets print goes elsewhere: the answer has the console to itself, and is never wrapped.
function Write-Line {
    param([string]$Text)
    [Console]::Out.Write($Text + [char]10)
}

function Open-Answer {
    param([string]$Action)
    Write-Line -Text ('passport:1:' + $Action)
}

# Adds one line to the answer; characters that the frame does not know become "?".
function Write-Answer {
    param([string]$Key, [string]$Value)
    $clean = $Value -creplace '[^0-9A-Za-z +/=:,.@_*-]', '?'
    if ($clean.Length -gt 1100) { $clean = $clean.Substring(0, 1100) }
    Write-Line -Text ($Key + '=' + $clean)
}

function Close-Answer {
    Write-Line -Text 'passport:end:ok'
    exit 0
}

# Closes the answer with a code of the list in refusals.py, and says what Windows said, if given.
function Stop-With {
    param([string]$Code, [string]$Detail)
    if ($Detail) {
        $short = $Detail
        if ($short.Length -gt 300) { $short = $short.Substring(0, 300) }
        Write-Answer -Key 'detail' -Value $short
    }
    Write-Line -Text ('passport:end:failed:' + $Code)
    exit 1
}

# Refuses a parameter that does not match its pattern as a whole; a newline never does.
function Test-Parameter {
    param([string]$Name, [string]$Value, [string]$Pattern)
    if ($Value -cnotmatch $Pattern -or $Value.Contains([string][char]10)) { Stop-With -Code 'parameters' -Detail $Name }
}

function Get-Epoch {
    return [DateTimeOffset]::UtcNow.ToUnixTimeSeconds()
}

function Test-System {
    if ([Security.Principal.WindowsIdentity]::GetCurrent().User.Value -cne 'S-1-5-18') { Stop-With -Code 'not_system' }
}

# Waits for the one lock of this server, which ends with the program. A file and not a mutex: any user could make
# and hold the mutex first, and so keep its own end waiting. Nobody but SYSTEM and administrators opens this folder.
function Lock-Server {
    param([int]$Seconds)
    $security = New-Object -TypeName System.Security.AccessControl.DirectorySecurity
    $security.SetSecurityDescriptorSddlForm('O:BAG:SYD:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)')
    $null = [IO.Directory]::CreateDirectory($Folder)
    [IO.Directory]::SetAccessControl($Folder, $security)
    $until = (Get-Epoch) + $Seconds
    while ($true) {
        try {
            $script:Lock = [IO.File]::Open($Folder + '\lock', 'OpenOrCreate', 'ReadWrite', 'None')
            return $true
        } catch [System.IO.IOException] {
            if ((Get-Epoch) -ge $until) { return $false }
            Start-Sleep -Seconds 1
        }
    }
}

function Unlock-Server {
    if ($null -ne $script:Lock) { $script:Lock.Dispose() }
    $script:Lock = $null
}

# One value of a record (a marker or a tombstone); empty when there is none.
function Read-Record {
    param([string]$Place, [string]$Name)
    $key = [Microsoft.Win32.Registry]::LocalMachine.OpenSubKey($Records + '\' + $Place)
    if ($null -eq $key) { return '' }
    try { return [string]$key.GetValue($Name, '') } finally { $key.Dispose() }
}

# On disk when this returns: a record comes before what it speaks of.
function Write-Record {
    param([string]$Place, [string]$Name, [string]$Value)
    $key = [Microsoft.Win32.Registry]::LocalMachine.CreateSubKey($Records + '\' + $Place)
    try {
        $key.SetValue($Name, $Value)
        $key.Flush()
    } finally { $key.Dispose() }
}

function Remove-Record {
    param([string]$Place)
    [Microsoft.Win32.Registry]::LocalMachine.DeleteSubKeyTree($Records + '\' + $Place, $false)
}

function Get-RecordNames {
    param([string]$Place)
    $key = [Microsoft.Win32.Registry]::LocalMachine.OpenSubKey($Records + '\' + $Place)
    if ($null -eq $key) { return @() }
    try { return $key.GetSubKeyNames() } finally { $key.Dispose() }
}

# From here on a create of this attempt, however late, is refused.
function Write-Tombstone {
    param([string]$RequestId, [string]$Attempt, [string]$Name, [string]$Sid)
    $place = 'Tombstones\' + $RequestId + '.' + $Attempt
    Write-Record -Place $place -Name 'user' -Value $Name
    Write-Record -Place $place -Name 'sid' -Value $Sid
    Write-Record -Place $place -Name 'at' -Value ([string](Get-Epoch))
}

function Test-Tombstone {
    param([string]$RequestId, [string]$Attempt)
    return (Read-Record -Place ('Tombstones\' + $RequestId + '.' + $Attempt) -Name 'user') -ne ''
}

# Forgets tombstones that no command can be late for any more.
function Clear-OldTombstones {
    $oldest = (Get-Epoch) - $TombstoneDays * 86400
    foreach ($name in @(Get-RecordNames -Place 'Tombstones')) {
        $at = Read-Record -Place ('Tombstones\' + $name) -Name 'at'
        if ($at -match '^[0-9]{1,18}$' -and [long]$at -lt $oldest) { Remove-Record -Place ('Tombstones\' + $name) }
    }
}

function Get-Account {
    param([string]$Name)
    return Get-LocalUser -Name $Name -ErrorAction SilentlyContinue
}

# The number at the end of a security id; Windows never gives one twice.
function Get-Rid {
    param([string]$Sid)
    return ($Sid -split '-')[-1]
}

# Whether somebody could log in, and be logged off again.
function Test-RemoteDesktop {
    $key = [Microsoft.Win32.Registry]::LocalMachine.OpenSubKey('SYSTEM\CurrentControlSet\Control\Terminal Server')
    if ($null -eq $key) { return $false }
    try { $denied = $key.GetValue('fDenyTSConnections', 1) } finally { $key.Dispose() }
    return $denied -eq 0 -and (Get-Service -Name 'TermService').Status -eq 'Running' -and
        [IO.File]::Exists($System + '\quser.exe')
}
