# Removing one user whole, and proving it. Used by the remove document, by the task on the server, and to take back
# a create that failed. It works on the name and the security id of the request's record.

$Killed = 0
$Jobs = 0
$Sessions = 0
$ProfilesGone = 0
$EndedAt = 0
$Left = @()

# Ends access, sweeps the server, verifies. True when nothing is left; Left names what is.
function Remove-User {
    param([string]$Name, [string]$Sid)
    Close-Door -Name $Name -Sid $Sid
    Remove-Tasks -Name $Name -Sid $Sid
    Remove-Services -Name $Name
    Stop-Sessions -Name $Name
    Stop-Processes -Sid $Sid
    $script:EndedAt = Get-Epoch
    Remove-OwnProfile -Sid $Sid
    Remove-Tasks -Name $Name -Sid $Sid
    if ($null -ne (Get-Own -Name $Name -Sid $Sid)) { Remove-LocalUser -SID $Sid }
    return Test-Gone -Name $Name -Sid $Sid
}

# Takes the record away; with the last one the sweeper, with each its task. The task that may be running goes last.
function Remove-Traces {
    param([string]$RequestId)
    Remove-Record -Place ('Requests\' + $RequestId)
    $sweeper = $Folder + '\sweep.ps1'
    if (@(Get-RecordNames -Place 'Requests').Count -eq 0 -and [IO.File]::Exists($sweeper)) { [IO.File]::Delete($sweeper) }
    if ($null -ne (Get-Timer -RequestId $RequestId)) {
        Unregister-ScheduledTask -TaskName $RequestId -TaskPath $TaskPath -Confirm:$false
    }
}

function Get-Timer {
    param([string]$RequestId)
    return Get-ScheduledTask -TaskName $RequestId -TaskPath $TaskPath -ErrorAction SilentlyContinue
}

# The account, if it is the very one that was made: a name may have passed to somebody else.
function Get-Own {
    param([string]$Name, [string]$Sid)
    $account = Get-Account -Name $Name
    if ($null -ne $account -and $Sid -ne '' -and $account.SID.Value -ceq $Sid) { return $account }
    return $null
}

# No new login: a disabled account is refused whatever groups it is in.
function Close-Door {
    param([string]$Name, [string]$Sid)
    if ($null -eq (Get-Own -Name $Name -Sid $Sid)) { return }
    Disable-LocalUser -SID $Sid
    foreach ($group in @('S-1-5-32-555', 'S-1-5-32-544')) { Exit-Group -Group $group -Sid $Sid }
}

function Exit-Group {
    param([string]$Group, [string]$Sid)
    try {
        Remove-LocalGroupMember -SID $Group -Member $Sid
    } catch [Microsoft.PowerShell.Commands.MemberNotFoundException] {
        # It was not in that one.
    }
}

# The ids of the user's sessions. The columns' titles and states are in the server's language, their order is not;
# one without a name is disconnected.
function Get-Sessions {
    param([string]$Name)
    $ErrorActionPreference = 'Continue'  # "no such user" comes on standard error
    $found = @()
    foreach ($line in @(& ($System + '\quser.exe') $Name 2>$null)) {
        if ($line -match '^[ >](\S+)\s+(?:[^\s0-9]\S*\s+)?([0-9]+)\s' -and $Matches[1] -eq $Name) { $found += $Matches[2] }
    }
    return $found
}

function Stop-Sessions {
    param([string]$Name)
    for ($try = 0; $try -lt 10; $try++) {
        $ids = @(Get-Sessions -Name $Name)
        if ($ids.Count -eq 0) { return }
        foreach ($id in $ids) { Close-Session -Id $id }
        if ($try -eq 0) { $script:Sessions += $ids.Count } else { Start-Sleep -Seconds 1 }
    }
}

function Close-Session {
    param([string]$Id)
    $ErrorActionPreference = 'Continue'  # it may have ended meanwhile
    $null = & ($System + '\logoff.exe') $Id 2>$null
}

# Whatever runs with the user's security id, in whichever session.
function Get-OwnProcesses {
    param([string]$Sid)
    $found = @()
    if ($Sid -eq '') { return $found }
    foreach ($process in @(Get-CimInstance -ClassName Win32_Process)) {
        $owner = Invoke-CimMethod -InputObject $process -MethodName GetOwnerSid -ErrorAction SilentlyContinue
        if ($null -ne $owner -and $owner.Sid -ceq $Sid) { $found += $process.ProcessId }
    }
    return $found
}

function Stop-Processes {
    param([string]$Sid)
    for ($try = 0; $try -lt 30; $try++) {
        $ids = @(Get-OwnProcesses -Sid $Sid)
        if ($ids.Count -eq 0) { return }
        foreach ($id in $ids) { Stop-Process -Id $id -Force -ErrorAction SilentlyContinue }
        if ($try -eq 0) { $script:Killed += $ids.Count }
        if ($try -gt 2) { Start-Sleep -Seconds 1 }
    }
}

# Tasks name who they run as by name, by computer and name, or by security id.
function Test-SamePerson {
    param([string]$Who, [string]$Name, [string]$Sid)
    return ($Who -split '\\')[-1] -eq $Name -or ($Sid -ne '' -and $Who -eq $Sid)
}

function Get-OwnTasks {
    param([string]$Name, [string]$Sid)
    $found = @()
    foreach ($task in @(Get-ScheduledTask)) {
        if (Test-SamePerson -Who ([string]$task.Principal.UserId) -Name $Name -Sid $Sid) { $found += $task }
    }
    return $found
}

function Remove-Tasks {
    param([string]$Name, [string]$Sid)
    foreach ($task in @(Get-OwnTasks -Name $Name -Sid $Sid)) {
        Unregister-ScheduledTask -TaskName $task.TaskName -TaskPath $task.TaskPath -Confirm:$false
        $script:Jobs += 1
    }
}

function Get-OwnServices {
    param([string]$Name)
    $found = @()
    foreach ($service in @(Get-CimInstance -ClassName Win32_Service)) {
        if (Test-SamePerson -Who ([string]$service.StartName) -Name $Name -Sid '') { $found += $service }
    }
    return $found
}

function Remove-Services {
    param([string]$Name)
    foreach ($service in @(Get-OwnServices -Name $Name)) {
        $null = Invoke-CimMethod -InputObject $service -MethodName StopService
        $null = Invoke-CimMethod -InputObject $service -MethodName Delete
        $script:Jobs += 1
    }
}

function Get-OwnProfile {
    param([string]$Sid)
    foreach ($found in @(Get-CimInstance -ClassName Win32_UserProfile)) {
        if ($Sid -ne '' -and $found.SID -ceq $Sid) { return $found }
    }
    return $null
}

# By Windows itself, which does not follow the junctions that a user may have left in it, as Remove-Item would.
# The user's part of the registry is let go of some seconds after the last process.
function Remove-OwnProfile {
    param([string]$Sid)
    for ($try = 0; $try -lt 30; $try++) {
        $found = Get-OwnProfile -Sid $Sid
        if ($null -eq $found) { return }
        try {
            Remove-CimInstance -InputObject $found
            $script:ProfilesGone += 1
        } catch {
            Start-Sleep -Seconds 1
        }
    }
}

# Looks again at everything, and names in Left what is still there.
function Test-Gone {
    param([string]$Name, [string]$Sid)
    $script:Left = @()
    if ($null -ne (Get-Own -Name $Name -Sid $Sid)) { $script:Left += 'user' }
    if ($null -eq (Get-Account -Name $Name) -and @(Get-Sessions -Name $Name).Count -gt 0) { $script:Left += 'sessions' }
    if (@(Get-OwnProcesses -Sid $Sid).Count -gt 0) { $script:Left += 'processes' }
    if ($null -ne (Get-OwnProfile -Sid $Sid)) { $script:Left += 'profile' }
    if (Test-Folder -Sid $Sid -Name $Name) { $script:Left += 'files' }
    if (@(Get-OwnTasks -Name $Name -Sid $Sid).Count -gt 0) { $script:Left += 'jobs' }
    if (@(Get-OwnServices -Name $Name).Count -gt 0) { $script:Left += 'jobs' }
    return $script:Left.Count -eq 0
}

# Whether anything of the profile is still on disk or in the list of profiles.
function Test-Folder {
    param([string]$Sid, [string]$Name)
    if ($Sid -eq '') { return $false }
    $key = [Microsoft.Win32.Registry]::LocalMachine.OpenSubKey($Profiles + '\' + $Sid)
    if ($null -ne $key) {
        $key.Dispose()
        return $true
    }
    return [IO.Directory]::Exists((Get-ProfileFolder -Name $Name))
}

function Get-ProfileFolder {
    param([string]$Name)
    $key = [Microsoft.Win32.Registry]::LocalMachine.OpenSubKey($Profiles)
    try { return [string]$key.GetValue('ProfilesDirectory', '') + '\' + $Name } finally { $key.Dispose() }
}

function Write-Counts {
    param([string]$Sid)
    $rid = ''
    if ($Sid -ne '') { $rid = Get-Rid -Sid $Sid }
    Write-Answer -Key 'uid' -Value $rid
    Write-Answer -Key 'ended_at' -Value ([string]$script:EndedAt)
    Write-Answer -Key 'sessions' -Value ([string]$script:Sessions)
    Write-Answer -Key 'processes' -Value ([string]$script:Killed)
    Write-Answer -Key 'files' -Value ([string]$script:ProfilesGone)
    Write-Answer -Key 'mounts' -Value '0'
    Write-Answer -Key 'jobs' -Value ([string]$script:Jobs)
}
