"""Which commands sudo may be given for: absolute, with fixed arguments, and none that is known to give a shell."""

import re

MOST_COMMANDS = 10
MOST_CHARACTERS = 200  # of one command

_PATH = "(/[A-Za-z0-9][A-Za-z0-9._+-]*)+"
_ARGUMENT = "[A-Za-z0-9/._@%+:=-]+"
COMMAND = f"{_PATH}( {_ARGUMENT})*"
# What the create document takes: none, all, or up to ten commands with commas between. No character of it means
# anything to a shell, and of sudoers' own only : and =, which the script escapes.
PATTERN = f"^(none|all|{COMMAND}(,{COMMAND}){{0,{MOST_COMMANDS - 1}}})$"

# Programs of GTFOBins (gtfobins.github.io) that give a shell or run a command under sudo, whatever their arguments
# are meant for, and the shells, interpreters, editors and pagers that the manual of sudoers warns of in "Preventing
# shell escapes". The names of versions and variants (python3.11, vim.tiny) are cut to these.
_KINDS = {
    "a shell": "ash bash bashbug busybox csh dash elvish fish ksh lksh mksh nash nushell posh pwsh rbash rc rksh "
    "rssh rzsh scponly sh slsh static-sh tcsh toybox yash zsh",
    "an interpreter": "R Rscript awk bpftrace bun bundle bundler clisp cpython deno dc erl expect fennel gawk gcl "
    "gdb genie ghc ghci gimp gnuplot groovy guile irb jjs jrunscript jshell julia ipython ld.so lua luajit m4 "
    "make gmake cmake mawk nawk nasm node nodejs ocaml octave perl perlbug php pic pry psysh puppet python qemu "
    "racket rake ruby runscript scala scheme scsh sqlmap swipl tclsh texlua wish xelatex latex lualatex luatex "
    "pdflatex pdftex tex",
    "an editor": "ed emacs emacsclient ex jed jmacs joe kak mcedit mg micro mousepad nano ne nvim pico pluma red "
    "rnano rview rvim sed sensible-editor editor select-editor sudoedit tilde vi view vigr vim vimdiff vimtutor "
    "vipw vis visudo crontab",
    "a pager or viewer": "bat batcat info less lesspipe man mc more most msgfilter nnn pager pg ranger screen "
    "sensible-pager tmux byobu watch w3m links lynx elinks mutt mail mailx neomutt alpine pine top htop atop "
    "run-mailcap xdg-open",
    "a program that runs others": "aa-exec ansible-playbook ansible-test aoss arch-nspawn at atq batch bconsole "
    "bee borg capsh certbot check_by_ssh check_cups check_log choom chpst chroot chrt cobc cpan cpio cpulimit "
    "crash csvtool ctr cupsfilter daemon distcc dmsetup docker dotnet easy_install easyrsa eb env facter find "
    "finger firejail flock gem genisoimage ginsh git grc gtester hping3 iftop ionice ip ispell jtag kubectl "
    "ldconfig loginctl logrotate logsave ltrace lxc lxd machinectl megasqlite minicom mosquitto multitime mysql "
    "mariadb nc ncat netcat nft nice nmap nohup npm npx nroff nsenter ntpdate nu openvpn pandoc parallel pax "
    "pdb pexec pip pipenv pipx podman poetry posix procmail prlimit psftp psql pkexec doas run-parts runuser "
    "runcon rlogin rlwrap rpm rpmdb rpmquery rpmverify rsh rsync rtorrent rustup script scp sftp ftp lftp "
    "telnet setarch setlock setpriv setsid sg smbclient snap socat softlimit split sqlite3 ssh ssh-agent "
    "ssh-keygen ssh-keyscan sshpass start-stop-daemon stdbuf strace su sudo systemd-run systemd-nspawn tar task "
    "taskset tasksh tcpdump tdbtool telinit time timedatectl timeout tmate torify torsocks troff tshark "
    "unbuffer unshare uv valgrind varnishncsa vagrant virsh virt-install volatility wall wg-quick wine wget "
    "xargs xdotool xpad yarn yelp zathura zip zypper apt apt-get aptitude dpkg dnf yum dstat gpg openssl "
    "apache2ctl opkg pacman snapper pkg ldapmodify",
    "a program that could rewrite the system's files": "adduser addgroup capset chmod chown chpasswd cp dd gpasswd "
    "insmod install kexec ln modprobe mount mv passwd setcap setfacl tee umount update-alternatives useradd usermod",
}
_REFUSED = {name: kind for kind, names in _KINDS.items() for name in names.split()}
_VERSION = re.compile(r"[-.]?[0-9][0-9.]*$|\.(tiny|basic|nox|gtk3?|athena|openbsd|traditional|ucb)$")

# What systemctl does by name only, without a pager or an editor.
_SYSTEMCTL = frozenset(
    {
        *("start", "stop", "restart", "try-restart", "reload", "reload-or-restart", "try-reload-or-restart"),
        *("is-active", "is-enabled", "is-failed", "reset-failed", "enable", "disable", "daemon-reload"),
    }
)


def objection(command: str) -> str:
    """Why sudo may not be given for this command, as words for an administrator; "" when it may."""
    if len(command) > MOST_CHARACTERS:
        return f"a command has at most {MOST_CHARACTERS} characters"
    if re.fullmatch(COMMAND, command) is None:
        return (
            f"{command!r} is not an absolute path with fixed arguments, one space between them: letters, digits and "
            "/ . _ - + @ % : = only; no wildcards, no quotes"
        )
    path, *arguments = command.split(" ")
    if any(".." in word.split("/") for word in (path, *arguments)):
        return f"{command!r} has .. in it; write the path out"
    name = path.rpartition("/")[2]
    kind = _kind(name)
    if kind:
        return f"{path} is {kind}, so it would give all of root; write sudo = true if that is meant"
    return _paged(name, path, arguments)


def _paged(name: str, path: str, arguments: list[str]) -> str:
    """The two of systemd that people need, and that start a pager, in which ``!sh`` is a root shell."""
    if name == "systemctl" and "--no-pager" not in arguments:
        verb = next((word for word in arguments if not word.startswith("-")), "")
        if verb not in _SYSTEMCTL:
            return (
                f"{path} {verb} could start a pager or an editor, and so a shell; add --no-pager, or name another verb"
            )
    if name == "systemctl" and {"edit", "link", "set-environment", "import-environment"} & set(arguments):
        return f"{path} could be made to run anything by that; name another verb"
    if name == "journalctl" and "--no-pager" not in arguments:
        return f"{path} starts a pager, and so a shell; add --no-pager"
    return ""


def _kind(name: str) -> str:
    """What kind of refused program a file name is, its version cut off; "" for none."""
    while name not in _REFUSED:
        shorter = _VERSION.sub("", name)
        if shorter == name:
            return ""
        name = shorter
    return _REFUSED[name]
