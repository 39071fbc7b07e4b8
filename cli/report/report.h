// The files of `bantam report`, for who makes a run.
#ifndef CLI_REPORT_REPORT_H
#define CLI_REPORT_REPORT_H

// Writes loss.svg, throughput.svg and report.html of a run directory, with what is there to be
// read; 0, or an exit code after printing why.
int report_run(const char *path);

#endif
