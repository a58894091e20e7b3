# The password: made here, set here, and told to nobody but the holder of the grant's private key.
# It is never a string and never a cmdlet's argument in the clear: module logging writes those down.
# New-LocalUser with a SecureString built up by characters, and not ADSI's SetPassword, which takes a string.

# 64 characters, so that six bits of a random byte choose one and none is likelier than another: 168 bits in all.
$Alphabet = 'ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnpqrstuvwxyz23456789#%+-.=@_'
$PasswordLength = 28
$Secure = $null
$Sealed = ''

# Makes a password with all four kinds of characters, which is what complexity rules may ask for:
# Secure is what Windows takes, Sealed its ciphertext in base64.
function New-Password {
    param([string]$Modulus, [string]$Exponent)
    $random = [Security.Cryptography.RandomNumberGenerator]::Create()
    $bytes = New-Object -TypeName byte[] -ArgumentList $PasswordLength
    do {
        $random.GetBytes($bytes)
        for ($i = 0; $i -lt $bytes.Length; $i++) { $bytes[$i] = [byte]$Alphabet[$bytes[$i] -band 63] }
    } while (-not (Test-Kinds -Bytes $bytes))
    $script:Sealed = [Convert]::ToBase64String((Protect-Bytes -Bytes $bytes -Modulus $Modulus -Exponent $Exponent))
    $script:Secure = New-Object -TypeName System.Security.SecureString
    foreach ($byte in $bytes) { $script:Secure.AppendChar([char]$byte) }
    $script:Secure.MakeReadOnly()
    [Array]::Clear($bytes, 0, $bytes.Length)
}

function Test-Kinds {
    param([byte[]]$Bytes)
    $kinds = @(0, 0, 0, 0)
    foreach ($byte in $Bytes) {
        if ($byte -ge 97 -and $byte -le 122) {
            $kinds[0] = 1
        } elseif ($byte -ge 65 -and $byte -le 90) {
            $kinds[1] = 1
        } elseif ($byte -ge 48 -and $byte -le 57) {
            $kinds[2] = 1
        } else {
            $kinds[3] = 1
        }
    }
    return $kinds[0] + $kinds[1] + $kinds[2] + $kinds[3] -eq 4
}

# RSA-OAEP with SHA-256. RSACng, because the default RSA of this PowerShell has no OAEP with SHA-256.
function Protect-Bytes {
    param([byte[]]$Bytes, [string]$Modulus, [string]$Exponent)
    $key = New-Object -TypeName System.Security.Cryptography.RSAParameters
    $key.Modulus = [Convert]::FromBase64String($Modulus)
    $key.Exponent = [Convert]::FromBase64String($Exponent)
    $rsa = New-Object -TypeName System.Security.Cryptography.RSACng
    try {
        $rsa.ImportParameters($key)
        return $rsa.Encrypt($Bytes, [Security.Cryptography.RSAEncryptionPadding]::OaepSHA256)
    } finally { $rsa.Dispose() }
}

# This server's own key among those of its command: "i-0123:modulus,i-4567:modulus".
function Select-Modulus {
    param([string]$Keys, [string]$Own)
    foreach ($entry in $Keys -split ',') {
        $parts = $entry -split ':'
        if ($parts[0] -ceq $Own) { return $parts[1] }
    }
    return ''
}
