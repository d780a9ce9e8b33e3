// Package page opens the page of order-api in Chromium, beside real servers: what is ordered there is seen moving, what is sold
// out and what is away is said, and it can be read in light, dark and on a small screen. Screenshots are kept in the folder shots.
package page
