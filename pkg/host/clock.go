package host

import (
	"context"
	"fmt"
	"os"
	"time"
)

// clockRequirement wants the clock not to be behind what is certain: this program was there when it was made. Certificates that
// are made by a clock which is behind, and then is set, are refused; so are those of the outside as long as it is behind.
func (m Machine) clockRequirement(now func() time.Time) Requirement {
	return Requirement{
		Name: "host/clock",
		Cure: []string{"set it: timedatectl set-ntp true, or date -s"},
		Check: func(context.Context) (string, error) {
			program, err := os.Executable()
			if err != nil {
				return "", err
			}
			info, err := os.Stat(program)
			if err != nil {
				return "", err
			}
			// A day, for files that come from another place of the world with no zone.
			if behind := info.ModTime().Sub(now()); behind > 24*time.Hour {
				return fmt.Sprintf("the clock says %s, %.0f days before this program was made", now().Format(time.DateOnly), behind.Hours()/24), nil
			}
			return "", nil
		},
	}
}
