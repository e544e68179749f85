-- Answers of re-runs are kept for as long as a call may be repeated.
create index rerun_page_age on rerun_page (answered_at);
