# The probe document: looks, changes nothing, and says whether this server could take a Passport user.

function Write-State {
    $windows = Get-CimInstance -ClassName Win32_OperatingSystem
    $role = (Get-CimInstance -ClassName Win32_ComputerSystem).DomainRole
    Write-Answer -Key 'os' -Value ('windows ' + $windows.Version)
    Write-Answer -Key 'now' -Value ([string](Get-Epoch))
    if ((Get-Service -Name 'Schedule').Status -eq 'Running') {
        Write-Answer -Key 'timer' -Value 'task'
    } else {
        Write-Answer -Key 'timer' -Value 'none'
    }
    if ($role -ge 4 -or $windows.ProductType -eq 2) {
        Write-Answer -Key 'domain_controller' -Value 'yes'
    } else {
        Write-Answer -Key 'domain_controller' -Value 'no'
    }
    if (Test-RemoteDesktop) { Write-Answer -Key 'rdp' -Value 'yes' } else { Write-Answer -Key 'rdp' -Value 'no' }
    Write-Answer -Key 'powershell' -Value ([string]$PSVersionTable.PSVersion)
}

# Up to twenty users with request, id and end; then how many there are.
function Write-Users {
    $names = @(Get-RecordNames -Place 'Requests')
    $shown = 0
    foreach ($name in $names) {
        $shown += 1
        if ($shown -gt 20) { continue }
        $place = 'Requests\' + $name
        $sid = Read-Record -Place $place -Name 'sid'
        $rid = '0'
        if ($sid -ne '') { $rid = Get-Rid -Sid $sid }
        $user = Read-Record -Place $place -Name 'user'
        $notAfter = Read-Record -Place $place -Name 'not_after'
        Write-Answer -Key 'account' -Value ($name + ' ' + $user + ' ' + $rid + ' ' + $notAfter)
    }
    Write-Answer -Key 'accounts' -Value ([string]$names.Count)
}

try {
    Open-Answer -Action 'probe'
    Test-Parameters
    Test-System
    Write-State
    Write-Users
    Close-Answer
} catch {
    Stop-With -Code 'unexpected' -Detail $_.Exception.Message
}
