# The remove document: leaves a tombstone, ends access, sweeps the server, verifies, and reports the proof.

# Without a record there is nothing of Passport's to touch: what a tombstone remembers is verified.
function Write-Absent {
    if ($null -ne (Get-Account -Name $UserName)) { Stop-With -Code 'foreign_account' -Detail $UserName }
    $sid = Read-Record -Place ('Tombstones\' + $RequestId + '.' + $Attempt) -Name 'sid'
    if (-not (Test-Gone -Name $UserName -Sid $sid)) { Stop-Left -Sid $sid }
    Remove-Traces -RequestId $RequestId  # of a program that died half way
    Write-Answer -Key 'result' -Value 'absent'
    Write-Proof -Sid $sid
}

function Write-Proof {
    param([string]$Sid)
    Write-Counts -Sid $Sid
    Write-Answer -Key 'swept_at' -Value ([string](Get-Epoch))
    Write-Answer -Key 'verified' -Value 'yes'
    Close-Answer
}

function Stop-Left {
    param([string]$Sid)
    Write-Counts -Sid $Sid
    Write-Answer -Key 'left' -Value ($script:Left -join ',')
    Stop-With -Code 'left_behind'
}

# The recorded user, if it is this attempt's: a repeated remove of an earlier attempt must not end a later one.
function Remove-Recorded {
    $place = 'Requests\' + $RequestId
    $sid = Read-Record -Place $place -Name 'sid'
    $account = Get-Account -Name $UserName
    if ($null -ne $account) {
        # A create that died half way has made the account and not yet written down its id.
        if ($sid -eq '' -and $account.Description -ceq ('Passport ' + $RequestId)) { $sid = $account.SID.Value }
        if ($sid -cne $account.SID.Value) { Stop-With -Code 'foreign_account' -Detail $UserName }
    }
    $administrator = Read-Record -Place $place -Name 'administrator'
    if (-not (Remove-User -Name $UserName -Sid $sid)) { Stop-Left -Sid $sid }
    Write-Tombstone -RequestId $RequestId -Attempt $Attempt -Name $UserName -Sid $sid
    Remove-Traces -RequestId $RequestId
    Write-Answer -Key 'result' -Value 'removed'
    if ($administrator -ceq 'yes') { Write-Answer -Key 'sudo' -Value 'all' } else { Write-Answer -Key 'sudo' -Value 'none' }
    Write-Proof -Sid $sid
}

function Invoke-Remove {
    Open-Answer -Action 'remove'
    Test-Parameters
    Write-Answer -Key 'request' -Value $RequestId
    Write-Answer -Key 'user' -Value $UserName
    Test-System
    if (-not (Test-Tombstone -RequestId $RequestId -Attempt $Attempt)) {
        Write-Tombstone -RequestId $RequestId -Attempt $Attempt -Name $UserName -Sid ''
    }
    if (-not (Lock-Server -Seconds 120)) { Stop-With -Code 'locked' }
    Clear-OldTombstones
    $known = Read-Record -Place ('Requests\' + $RequestId) -Name 'user'
    if ($known -eq '') { Write-Absent }
    if ($known -cne $UserName) { Stop-With -Code 'foreign_account' -Detail $known }
    if ((Read-Record -Place ('Requests\' + $RequestId) -Name 'attempt') -cne $Attempt) {
        Write-Answer -Key 'result' -Value 'superseded'
        Close-Answer
    }
    Remove-Recorded
}

try {
    Invoke-Remove
} catch {
    Stop-With -Code 'unexpected' -Detail $_.Exception.Message
}
