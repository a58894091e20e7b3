# The create document: makes one short-lived user, whose end is on this disk before its account is.
# Run twice it answers the same, the password included; with another end it moves the end.

$Existing = $false
$Made = $false

# Refuses before anything is touched.
function Test-Server {
    Test-System
    if ((Get-Epoch) -ge [long]$NotAfter) { Stop-With -Code 'after_end' }
    # On a domain controller a "local" user is a user of the whole domain.
    $role = (Get-CimInstance -ClassName Win32_ComputerSystem).DomainRole
    $kind = (Get-CimInstance -ClassName Win32_OperatingSystem).ProductType
    if ($role -ge 4 -or $kind -eq 2) { Stop-With -Code 'domain_controller' }
    if (-not (Test-RemoteDesktop)) { Stop-With -Code 'no_rdp' }
    if ((Get-Service -Name 'Schedule').Status -ne 'Running') { Stop-With -Code 'no_scheduler' }
    if (-not (Lock-Server -Seconds 60)) { Stop-With -Code 'locked' }
    Clear-OldTombstones
    if (Test-Tombstone -RequestId $RequestId -Attempt $Attempt) { Stop-With -Code 'tombstone' }
}

# Takes up this request's own earlier user, or makes sure that the name and the profile are nobody's.
function Find-Account {
    $place = 'Requests\' + $RequestId
    $account = Get-Account -Name $UserName
    $known = Read-Record -Place $place -Name 'user'
    if ($known -ne '') {
        if ($known -cne $UserName) { Stop-With -Code 'foreign_account' -Detail $known }
        if ($null -ne $account) {
            $sid = Read-Record -Place $place -Name 'sid'
            $same = $sid -eq '' -or $sid -ceq $account.SID.Value
            if (-not $same -or $account.Description -cne (Get-Mark)) { Stop-With -Code 'foreign_account' -Detail $UserName }
            $script:Existing = $true
        }
        return
    }
    if ($null -ne $account) { Stop-With -Code 'foreign_account' -Detail $UserName }
    if ($null -ne (Get-LocalGroup -Name $UserName -ErrorAction SilentlyContinue)) {
        Stop-With -Code 'foreign_account' -Detail $UserName
    }
    if ([IO.Directory]::Exists((Get-ProfileFolder -Name $UserName))) { Stop-With -Code 'home_exists' -Detail $UserName }
}

# The description names the request; only administrators could change it.
function Get-Mark {
    return 'Passport ' + $RequestId
}

# The record says what is Passport's and when it ends; it is there before anything it speaks of, its user last.
function Write-Marker {
    $place = 'Requests\' + $RequestId
    $had = Read-Record -Place $place -Name 'administrator'
    if ($had -cne 'yes') { Write-Record -Place $place -Name 'administrator' -Value $Administrator }
    Write-Record -Place $place -Name 'attempt' -Value $Attempt
    Write-Record -Place $place -Name 'not_after' -Value $NotAfter
    Write-Record -Place $place -Name 'user' -Value $UserName
}

# The sweeper and its task: at the end, each minute after it until it is done, and at a start after a missed end.
function Install-Timer {
    [IO.File]::WriteAllText($Folder + '\sweep.ps1', $Sweeper)
    $ends = [DateTimeOffset]::FromUnixTimeSeconds([long]$NotAfter)
    $program = $System + '\WindowsPowerShell\v1.0\powershell.exe'
    $words = '-NoProfile -NonInteractive -ExecutionPolicy Bypass -File "' + $Folder + '\sweep.ps1"'
    $action = New-ScheduledTaskAction -Execute $program -Argument $words
    $atEnd = New-ScheduledTaskTrigger -Once -At $ends.LocalDateTime -RepetitionInterval (New-TimeSpan -Minutes 1)
    $atEnd.StartBoundary = $ends.UtcDateTime.ToString('s') + 'Z'  # whatever the server's time zone and language are
    $atStart = New-ScheduledTaskTrigger -AtStartup
    $principal = New-ScheduledTaskPrincipal -UserId 'S-1-5-18' -LogonType ServiceAccount -RunLevel Highest
    $settings = New-ScheduledTaskSettingsSet -StartWhenAvailable -AllowStartIfOnBatteries -DontStopIfGoingOnBatteries -MultipleInstances IgnoreNew -ExecutionTimeLimit (New-TimeSpan -Minutes 15)
    $null = Register-ScheduledTask -TaskName $RequestId -TaskPath $TaskPath -Action $action -Trigger @($atEnd, $atStart) -Principal $principal -Settings $settings -Force
    if ($null -eq (Get-Timer -RequestId $RequestId)) { Undo-Create -Code 'no_scheduler' }
}

# Makes the account, or gives the one that stands its new end. A password that was given under the same key stays:
# a command that comes twice must not make the first answer wrong.
function New-Account {
    $place = 'Requests\' + $RequestId
    $expires = [DateTimeOffset]::FromUnixTimeSeconds([long]$NotAfter).LocalDateTime
    if ($script:Existing) { Set-LocalUser -Name $UserName -AccountExpires $expires }
    $script:Sealed = Read-Record -Place $place -Name 'sealed'
    if (-not $script:Existing -or $script:Sealed -eq '' -or (Read-Record -Place $place -Name 'key') -cne $Modulus) {
        New-Password -Modulus $Modulus -Exponent $PublicExponent
        if ($script:Existing) {
            Set-LocalUser -Name $UserName -Password $script:Secure
        } else {
            $null = New-LocalUser -Name $UserName -Password $script:Secure -AccountExpires $expires -Description (Get-Mark) -UserMayNotChangePassword -Disabled
            $script:Made = $true
        }
        Write-Record -Place $place -Name 'key' -Value $Modulus
        Write-Record -Place $place -Name 'sealed' -Value $script:Sealed
    }
    $script:Sid = (Get-Account -Name $UserName).SID.Value
    Write-Record -Place $place -Name 'sid' -Value $script:Sid
}

# The door opens last. Groups by their well-known security ids: their names are in the server's language.
function Open-Door {
    if (Test-Tombstone -RequestId $RequestId -Attempt $Attempt) { Undo-Create -Code 'tombstone' }
    $group = 'S-1-5-32-555'
    if ($Administrator -ceq 'yes') { $group = 'S-1-5-32-544' }
    try {
        Add-LocalGroupMember -SID $group -Member $script:Sid
    } catch [Microsoft.PowerShell.Commands.MemberExistsException] {
        # It was in it already: the command came twice.
    }
    Enable-LocalUser -SID $script:Sid
}

# Fails, and takes back what a first create has made so far; an account that stood before stays.
# What cannot be taken back keeps its record, and the task goes on trying from the end of the request.
function Undo-Create {
    param([string]$Code, [string]$Detail)
    if (-not $script:Existing) {
        $sid = ''
        if ($script:Made) { $sid = (Get-Account -Name $UserName).SID.Value }
        if (Remove-User -Name $UserName -Sid $sid) { Remove-Traces -RequestId $RequestId }
    }
    Stop-With -Code $Code -Detail $Detail
}

function Write-Created {
    $existing = 'no'
    if ($script:Existing) { $existing = 'yes' }
    Write-Answer -Key 'uid' -Value (Get-Rid -Sid $script:Sid)
    Write-Answer -Key 'existing' -Value $existing
    Write-Answer -Key 'not_after' -Value $NotAfter
    Write-Answer -Key 'now' -Value ([string](Get-Epoch))
    Write-Answer -Key 'timer' -Value 'task'
    Write-Answer -Key 'port' -Value ([string](Get-Port))
    Write-Answer -Key 'password' -Value $script:Sealed
    Close-Answer
}

function Get-Port {
    $key = [Microsoft.Win32.Registry]::LocalMachine.OpenSubKey('SYSTEM\CurrentControlSet\Control\Terminal Server\WinStations\RDP-Tcp')
    if ($null -eq $key) { return 3389 }
    try { return $key.GetValue('PortNumber', 3389) } finally { $key.Dispose() }
}

function Invoke-Create {
    Open-Answer -Action 'create'
    Test-Parameters
    Write-Answer -Key 'request' -Value $RequestId
    Write-Answer -Key 'user' -Value $UserName
    Test-Server
    $script:Modulus = Select-Modulus -Keys $PublicKeys -Own ([string]$env:AWS_SSM_INSTANCE_ID)
    if ($script:Modulus -eq '') { Stop-With -Code 'parameters' -Detail 'PublicKeys' }
    Find-Account
    Write-Marker
    try {
        Install-Timer
        New-Account
        Open-Door
    } catch {
        Undo-Create -Code 'account' -Detail $_.Exception.Message
    }
    Write-Created
}

$Sid = ''
$Modulus = ''
try {
    Invoke-Create
} catch {
    Stop-With -Code 'unexpected' -Detail $_.Exception.Message
}
