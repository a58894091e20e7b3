# The sweeper: run by each request's task on the server, it removes who is due, with no Passport needed.

# Removes one user; one failure stops nobody else's end.
function Clear-Request {
    param([string]$RequestId)
    $place = 'Requests\' + $RequestId
    $name = Read-Record -Place $place -Name 'user'
    $attempt = Read-Record -Place $place -Name 'attempt'
    $sid = Read-Record -Place $place -Name 'sid'
    if ($name -eq '') { Remove-Traces -RequestId $RequestId }  # of a create that died before it made anything
    if ($name -cnotmatch '^pp-[0-9a-z]{4,8}$') { return }
    $account = Get-Account -Name $name
    if ($null -ne $account -and $sid -eq '' -and $account.Description -ceq ('Passport ' + $RequestId)) {
        $sid = $account.SID.Value
    }
    Write-Tombstone -RequestId $RequestId -Attempt $attempt -Name $name -Sid $sid
    if (Remove-User -Name $name -Sid $sid) { Remove-Traces -RequestId $RequestId }
}

function Test-Due {
    param([string]$RequestId)
    $notAfter = Read-Record -Place ('Requests\' + $RequestId) -Name 'not_after'
    return $notAfter -cnotmatch '^[0-9]{1,18}$' -or [long]$notAfter -le (Get-Epoch)
}

# Tasks without a request, left by a program that died in its last steps; one of them may be the one that runs this.
function Clear-StrayTasks {
    foreach ($task in @(Get-ScheduledTask)) {
        if ($task.TaskPath -eq $TaskPath -and (Read-Record -Place ('Requests\' + $task.TaskName) -Name 'user') -eq '') {
            Unregister-ScheduledTask -TaskName $task.TaskName -TaskPath $TaskPath -Confirm:$false
        }
    }
}

foreach ($request in @(Get-RecordNames -Place 'Requests')) {
    if (-not (Test-Due -RequestId $request)) { continue }
    if (-not (Lock-Server -Seconds 50)) { exit 1 }
    try {
        if (Test-Due -RequestId $request) { Clear-Request -RequestId $request }
    } catch {
        # The task comes again in a minute.
    } finally { Unlock-Server }
}
if (-not (Lock-Server -Seconds 50)) { exit 1 }
Clear-StrayTasks
